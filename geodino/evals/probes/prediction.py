"""What every probe returns, and what several of them need."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

HELD_OUT = 0.2
"""Share of the training rows held out to choose on where a set has no validation part."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a probe says about the test part, one entry an image; what does not apply is None."""

    labels: Shaped[np.ndarray, "n *k"] | None = None
    """Classification: the most probable class, the first one in a tie. Multi-label: which classes
    are said to be there ``[n k]``."""

    probabilities: Float[np.ndarray, "n k"] | None = None
    """One column a class. DINO's weighted vote sums to less than 1 when k < max(k)."""

    values: Float[np.ndarray, " n"] | None = None
    """Regression: the number said of each image."""

    confusion: Int[np.ndarray, "n k k"] | None = None
    """Segmentation: pixels of each image per (true class, predicted class)."""

    errors: Float[np.ndarray, "n s"] | None = None
    """Dense regression: sums over the pixels of each image, ``metrics.regression.error_sums``."""

    chosen: dict[str, float]
    """Hyper-parameters: ``k``, ``c``, ``lr``, ``alpha``, and what they were chosen by."""

    @property
    def classes(self) -> Int[np.ndarray, " n"]:
        """The class said of each image.

        Raises:
            ValueError: the prediction is not one class an image.
        """
        if self.labels is None or self.labels.ndim != 1:
            raise ValueError("this prediction does not say one class an image")
        return np.asarray(self.labels)

    @property
    def confidence(self) -> Float[np.ndarray, " n"]:
        """Probability of the predicted class of each image.

        Raises:
            ValueError: the prediction is not one class an image.
        """
        labels = self.classes
        if self.probabilities is None:
            raise ValueError("this prediction comes without probabilities")
        return np.asarray(self.probabilities[np.arange(len(labels)), labels])


def one_class(probabilities: Float[np.ndarray, "n k"], *, chosen: dict[str, float]) -> Prediction:
    """Return the prediction of the most probable class of each row."""
    return Prediction(
        labels=probabilities.argmax(axis=1), probabilities=probabilities, chosen=chosen
    )


def many_classes(
    probabilities: Float[np.ndarray, "n k"], *, chosen: dict[str, float]
) -> Prediction:
    """Return the prediction of every class whose probability is at least one half."""
    return Prediction(labels=probabilities >= 0.5, probabilities=probabilities, chosen=chosen)


def standardise(
    train_x: Float[np.ndarray, "m d"], test_x: Float[np.ndarray, "n d"]
) -> tuple[Float[np.ndarray, "m d"], Float[np.ndarray, "n d"]]:
    """Scale columns to mean 0 and standard deviation 1 over the training rows.

    A column that is constant over the training rows becomes 0 there and says nothing.
    """
    mean = train_x.mean(axis=0, dtype=np.float64)
    std = train_x.std(axis=0, dtype=np.float64)
    informative = std > 1e-12 * np.maximum(1.0, np.abs(mean))
    scale = np.where(informative, 1.0 / np.where(informative, std, 1.0), 0.0)
    return (train_x - mean) * scale, (test_x - mean) * scale


def stratified(
    labels: Int[np.ndarray, " m"], share: float, generator: np.random.Generator
) -> Bool[np.ndarray, " m"]:
    """True for ``share`` of the rows of each class, never for all rows of a class."""
    held = np.zeros(len(labels), dtype=bool)
    for value in np.unique(labels):
        rows = np.flatnonzero(labels == value)
        count = min(round(share * len(rows)), len(rows) - 1)
        held[generator.permutation(rows)[:count]] = True
    return held


def held_out_rows(
    labels: Shaped[np.ndarray, "m *k"], share: float, generator: np.random.Generator
) -> Bool[np.ndarray, " m"]:
    """True for the rows to choose on: by class where a row has one, else any; one row stays."""
    if labels.ndim == 1 and labels.dtype.kind in "iu":
        return stratified(labels, share, generator)
    return stratified(np.zeros(len(labels), dtype=np.int64), share, generator)
