"""Features in 8 bits: one scale per dimension, and what that costs."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int8

NODATA = -128
"""Stored where there is no feature; features are stored as -127 to 127."""

NEIGHBOURS = 10
"""``k`` of the recall that is reported."""

_QUERIES = 512
"""Tokens whose neighbours are looked for."""


@dataclass(frozen=True, slots=True)
class Quantiser:
    """Symmetric linear quantisation: ``feature = stored * scale``, one scale per dimension.

    Lengths are kept: nothing is normalised first. Features beyond the range that the scales were
    fitted on are stored as its ends.

    Args:
        scale: step of each dimension, float32 and above 0.
    """

    scale: Float[np.ndarray, "d"]

    @classmethod
    def fit(cls, features: Float[np.ndarray, "n d"]) -> "Quantiser":
        """Choose scales so that the largest magnitude of each dimension is stored as 127."""
        largest = np.abs(features).max(axis=0)
        scale = np.where(largest > 0, largest / 127, 1.0)
        return cls(scale.astype(np.float32))

    def quantise(self, features: Float[np.ndarray, "d ..."]) -> Int8[np.ndarray, "d ..."]:
        """Return stored values; NaN becomes ``NODATA``. The dimension comes first."""
        scale = self.scale.reshape(-1, *[1] * (features.ndim - 1))
        steps = np.clip(np.rint(features / scale), -127, 127)
        stored: Int8[np.ndarray, "d ..."] = np.nan_to_num(steps, nan=NODATA).astype(np.int8)
        return stored

    def restore(self, stored: Int8[np.ndarray, "d ..."]) -> Float[np.ndarray, "d ..."]:
        """Return features, float32; ``NODATA`` becomes NaN. The dimension comes first."""
        scale = self.scale.reshape(-1, *[1] * (stored.ndim - 1))
        features: Float[np.ndarray, "d ..."] = np.where(
            stored == NODATA, np.float32(np.nan), stored * scale
        )
        return features


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """What quantisation costs."""

    relative_error: float
    """Root of the mean squared error, over the root of the variance of the features."""

    clipped_share: float
    """Share of the values that lie beyond the range of their dimension."""

    recall: float
    """Share of the ``neighbours`` nearest features by cosine that are still among the nearest."""

    neighbours: int
    """How many nearest features were compared."""

    features: int
    """How many features were looked at."""


def measure(quantiser: Quantiser, features: Float[np.ndarray, "n d"]) -> Loss:
    """Measure what storing ``features`` in 8 bits costs.

    Recall compares the nearest neighbours of up to 512 of them among all of them, each feature
    itself left out.
    """
    restored = quantiser.restore(quantiser.quantise(features.T)).T
    error = np.sqrt(np.square(restored - features, dtype=np.float64).mean())
    spread = np.sqrt(np.square(features - features.mean(axis=0), dtype=np.float64).mean())
    k = min(NEIGHBOURS, len(features) - 1)
    return Loss(
        relative_error=float(error / spread) if spread > 0 else 0.0,
        clipped_share=float((np.abs(features) > 127.5 * quantiser.scale).mean()),
        recall=_recall(features, restored, k) if k > 0 else 1.0,
        neighbours=k,
        features=len(features),
    )


def _recall(true: Float[np.ndarray, "n d"], stored: Float[np.ndarray, "n d"], k: int) -> float:
    queries = np.unique(np.linspace(0, len(true) - 1, min(_QUERIES, len(true))).astype(int))
    near, still = (_nearest(features, queries, k) for features in (true, stored))
    shared = [len(np.intersect1d(a, b)) for a, b in zip(near, still, strict=True)]
    return float(np.mean(shared) / k)


def _nearest(features: Float[np.ndarray, "n d"], queries: np.ndarray, k: int) -> np.ndarray:
    length = np.linalg.norm(features, axis=1, keepdims=True)
    unit = features / np.maximum(length, np.finfo(np.float32).tiny)
    cosine = unit[queries] @ unit.T
    cosine[np.arange(len(queries)), queries] = -np.inf
    return np.asarray(np.argpartition(-cosine, k - 1, axis=1)[:, :k])
