"""Features as a picture: their three principal components in red, green and blue."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8

COMPONENTS = 3

_STRETCH = (2.0, 98.0)
"""Percentiles of a component that become the darkest and the brightest colour."""


@dataclass(frozen=True, slots=True)
class Preview:
    """Projects features on their principal components and stretches these to colours.

    Args:
        mean: of the features it was fitted on ``[d]``.
        axes: unit vectors, the widest first ``[3, d]``.
        low: what becomes the darkest colour, per component.
        high: what becomes the brightest.
        explained: share of the variance along each axis.
    """

    mean: Float[np.ndarray, "d"]
    axes: Float[np.ndarray, "3 d"]
    low: Float[np.ndarray, "3"]
    high: Float[np.ndarray, "3"]
    explained: Float[np.ndarray, "3"]

    @classmethod
    def fit(cls, features: Float[np.ndarray, "n d"]) -> "Preview":
        """Fit on a sample; each axis points where its largest entry is positive.

        A sample of fewer than three directions leaves the other colours at 0.
        """
        from sklearn.decomposition import PCA

        mean = features.mean(axis=0)
        count = min(COMPONENTS, *features.shape)
        axes = np.zeros((COMPONENTS, features.shape[1]), dtype=np.float32)
        explained = np.zeros(COMPONENTS, dtype=np.float32)
        if len(features) > 1 and np.ptp(features, axis=0).any():
            # scikit-learn fixes the signs, which are free: two runs give the same colours.
            fitted = PCA(count, svd_solver="full").fit(features.astype(np.float64))
            axes[:count] = fitted.components_
            explained[:count] = fitted.explained_variance_ratio_
        values = (features - mean) @ axes.T
        low, high = np.percentile(values, _STRETCH, axis=0).astype(np.float32)
        return cls(mean, axes, low, high, explained)

    def colours(
        self, values: Float[np.ndarray, "d h w"], valid: Bool[np.ndarray, "h w"]
    ) -> UInt8[np.ndarray, "3 h w"]:
        """Return colours from 1 to 255; 0, the nodata value, where there is no feature."""
        inside = np.zeros((COMPONENTS, *valid.shape), dtype=np.uint8)
        components = (values[:, valid].T - self.mean) @ self.axes.T
        width = np.where(self.high > self.low, self.high - self.low, 1.0)
        share = np.clip((components - self.low) / width, 0.0, 1.0)
        inside[:, valid] = (1 + np.rint(254 * share)).astype(np.uint8).T
        return inside
