"""Statistics of a set's stored values, where nobody publishes them."""

from contextlib import closing

import numpy as np

from geodino.data.labelled.sets import BandStatistics, Image, LabelledSet
from geodino.data.parallel import in_order
from geodino.errors import SourceError

_LOOKED_AT = 2000
"""Training images that are read at most, spread over all of them."""


def measured(data: LabelledSet, *, threads: int) -> BandStatistics:
    """Return range, mean and deviation of each band over valid pixels of training images.

    Raises:
        SourceError: a band has no valid pixel in them.
    """
    keys = data.parts["train"]
    numbers = np.unique(np.linspace(0, len(keys) - 1, min(_LOOKED_AT, len(keys))).round())
    chosen = [keys[int(i)] for i in numbers]
    bands = len(data.facts.bands)
    low, high = np.full(bands, np.inf), np.full(bands, -np.inf)
    count, total, squares = np.zeros(bands), np.zeros(bands), np.zeros(bands)
    shift: np.ndarray | None = None

    def read(key: str) -> Image:
        return data.image(key)

    with closing(in_order(read, chosen, threads=threads)) as images:
        for pixels, valid in images:
            values = np.where(valid, pixels, 0).astype(np.float64)
            n = valid.sum(axis=(1, 2))
            if shift is None:
                # Sums of squares about a typical value keep their digits.
                shift = values.sum(axis=(1, 2)) / np.maximum(n, 1)
            centred = np.where(valid, values - shift[:, None, None], 0.0)
            count += n
            total += centred.sum(axis=(1, 2))
            squares += (centred * centred).sum(axis=(1, 2))
            low = np.minimum(low, np.where(valid, values, np.inf).min(axis=(1, 2)))
            high = np.maximum(high, np.where(valid, values, -np.inf).max(axis=(1, 2)))
    if shift is None or not count.all():
        raise SourceError(
            f"{data.facts.name}: a band has no valid pixel in the training images, so its values "
            "cannot be scaled. Leave that band out with --bands."
        )
    mean = total / count
    std = np.sqrt(np.maximum(squares / count - mean * mean, 0.0))
    return BandStatistics(
        low=tuple(low.tolist()),
        high=tuple(high.tolist()),
        mean=tuple((mean + shift).tolist()),
        std=tuple(std.tolist()),
    )
