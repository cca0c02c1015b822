"""Maps of whole labelled images exactly as predictions are made, and what they are compared with."""

from collections.abc import Iterable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from geodino.data.labelled.sets import IGNORED, PartName
from geodino.geo.windows import Window
from geodino.infer.classes import most_likely
from geodino.infer.engine import Predictor
from geodino.infer.whole import predict_window
from geodino.tasks.chips import Chips
from geodino.tasks.segmentation.source import ClassSource

_SIDE = 2048
"""Longest side of what is predicted at once, pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """An image, or a part of a large one."""

    key: str
    window: Window


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """A map and the truth, on the same pixels."""

    cell: Cell
    predicted: UInt8[np.ndarray, "h w"]
    """255 where the image is not valid."""

    truth: UInt8[np.ndarray, "h w"]
    """255 where it does not count."""


def cells_of(source: ClassSource, part: PartName) -> tuple[Cell, ...]:
    """Return what covers all images of a part, in a fixed order."""
    found = []
    for key in source.set.parts.get(part, ()):
        height, width = source.set.size(key)
        for top in range(0, height, _SIDE):
            for left in range(0, width, _SIDE):
                window = Window(top, left, min(_SIDE, height - top), min(_SIDE, width - left))
                found.append(Cell(key=key, window=window))
    return tuple(found)


def judged(
    source: ClassSource,
    cells: Iterable[Cell],
    predictor: Predictor,
    chips: Chips,
    *,
    threads: Executor,
) -> Iterator[Judged]:
    """Predict cells one after the other, those without a label left out."""
    for cell in cells:
        truth = source.label(cell.key, cell.window)
        if (truth == IGNORED).all():
            continue
        grid = source.grid(cell.key)
        values, valid = predict_window(
            source.raster(cell.key),
            predictor,
            chips.cover(grid.height, grid.width, predictor=predictor),
            threads=threads,
            regrid=source.regrid(cell.key),
            window=cell.window,
        )
        yield Judged(cell=cell, predicted=most_likely(values, valid), truth=truth)
