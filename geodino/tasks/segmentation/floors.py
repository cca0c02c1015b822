"""What a model must beat: the most frequent class everywhere, and classes by the values of bands."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Shaped, UInt8

from geodino import seeds
from geodino.data.labelled.sets import IGNORED
from geodino.data.parallel import in_order
from geodino.geo.windows import Window
from geodino.tasks.segmentation.crops import ClassWindows
from geodino.tasks.segmentation.evaluate import Cell
from geodino.tasks.segmentation.source import ClassSource

MAJORITY, BANDS = "most frequent class", "logistic regression on bands"
"""What the floors are called."""

_AROUND = 9
"""Pixels a side of the neighbourhood whose mean and deviation are looked at."""

_WINDOWS = 64
"""Training windows that pixels are drawn from, at most."""

_SIDE = 2048
"""Longest side of what is looked at in one of them, pixels."""


def band_features(
    pixels: Shaped[np.ndarray, "c h w"],
    valid: Bool[np.ndarray, "h w"],
    *,
    mean: Sequence[float],
    std: Sequence[float],
) -> Float[np.ndarray, "f h w"]:
    """Return of each pixel its normalised bands, and their mean and deviation around it.

    Pixels that are not valid count as the mean of the band.
    """
    from scipy.ndimage import uniform_filter

    centre, spread = (np.asarray(v, dtype=np.float32)[:, None, None] for v in (mean, std))
    values = np.where(valid, (pixels.astype(np.float32) - centre) / spread, np.float32(0))
    size = (1, _AROUND, _AROUND)
    around = uniform_filter(values, size=size, mode="nearest")
    squares = uniform_filter(values * values, size=size, mode="nearest")
    deviation = np.sqrt(np.maximum(squares - around * around, 0))
    return np.concatenate([values, around, deviation])


@dataclass(frozen=True, kw_only=True)
class ClassFloors:
    """Both floors, fitted on training windows."""

    source: ClassSource
    majority: int
    """Number of the most frequent class."""

    bands: Any | None
    """The fitted regression; None where it could not be."""

    def constant(self, truth: UInt8[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w"]:
        """Return the most frequent class everywhere."""
        return np.full(truth.shape, self.majority, np.uint8)

    def by_bands(self, cell: Cell) -> UInt8[np.ndarray, "h w"] | None:
        """Return the class of each pixel of a cell by its bands; None without the regression."""
        if self.bands is None:
            return None
        features, valid = _features(self.source, cell.key, cell.window)
        found = self.bands.predict(features.reshape(len(features), -1).T).astype(np.uint8)
        return np.where(valid, found.reshape(valid.shape), np.uint8(IGNORED))


def fit_floors(
    source: ClassSource, windows: ClassWindows, *, pixels: int, seed: int, threads: int
) -> ClassFloors:
    """Fit both floors on some of the training windows.

    Args:
        source: images and labels.
        windows: those with labels.
        pixels: how many are drawn for the regression; 0 leaves it out.
        seed: of the draw.
        threads: that read.
    """
    majority = int(windows.frequency.argmax())
    drawn = seeds.rng(seed, "floors").permutation(windows.looked_at)[:_WINDOWS].tolist()
    each = -(-pixels // max(len(drawn), 1))

    def some(number: int) -> tuple[Float[np.ndarray, "n f"], UInt8[np.ndarray, " n"]]:
        image = int(windows.image[number])
        top, left = windows.corner[number].tolist()
        height, width = windows.sizes[image]
        seen = Window(top, left, min(windows.crop, height), min(windows.crop, width))
        # Floors know images as they are, whatever the resolution a model sees.
        window = _at_most(source.under(windows.keys[image], seen))
        truth = source.label(windows.keys[image], window)
        features, valid = _features(source, windows.keys[image], window)
        places = np.flatnonzero((truth != IGNORED) & valid)
        places = seeds.rng(seed, "floors", number).permutation(places)[:each]
        return features.reshape(len(features), -1).T[places], truth.reshape(-1)[places]

    if not pixels:
        return ClassFloors(source=source, majority=majority, bands=None)
    parts = list(in_order(some, drawn, threads=threads))
    features = np.concatenate([found for found, _ in parts])
    truth = np.concatenate([classes for _, classes in parts])
    fitted = _fitted(features, truth) if len(np.unique(truth)) > 1 else None
    return ClassFloors(source=source, majority=majority, bands=fitted)


def _at_most(window: Window) -> Window:
    return Window(window.top, window.left, min(window.height, _SIDE), min(window.width, _SIDE))


def _fitted(features: Float[np.ndarray, "n f"], truth: UInt8[np.ndarray, " n"]) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))
    with warnings.catch_warnings(), threadpool_limits(limits=1):
        # A floor need not be fitted to the last digit.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return model.fit(features.astype(np.float64), truth)


def _features(
    source: ClassSource, key: str, window: Window
) -> tuple[Float[np.ndarray, "f h w"], Bool[np.ndarray, "h w"]]:
    pixels, valid = source.read(key, window)
    contract = source.contract
    return band_features(pixels, valid, mean=contract.mean, std=contract.std), valid
