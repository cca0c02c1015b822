"""Maps of classes in a report: image, prediction, truth and where they differ, to one legend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, UInt8
from markupsafe import Markup
from numpy import ndarray

from geodino.report.picture_table import Cell, Seen, picture_table, place_row
from geodino.report.pictures import enlarged, enlargement, hatched

MAP_SIDE = 256
"""Longest side of a map in the page, pixels."""

NO_CLASS = 255

_COLUMNS = ("image", "predicted", "true", "wrong")
_RIGHT, _WRONG = (232, 236, 240), (204, 51, 17)

Colour = tuple[int, int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassCase:
    """One image: what was seen, what was predicted, what is true."""

    name: str
    image: Seen

    predicted: UInt8[ndarray, "h w"]
    """Number of the class; 255 where there is no prediction."""

    truth: UInt8[ndarray, "h w"]
    """255 where it does not count."""

    @property
    def both(self) -> Bool[ndarray, "h w"]:
        """Where there is a truth and a prediction."""
        return np.asarray((self.truth != NO_CLASS) & (self.predicted != NO_CLASS))


def class_panels(cases: Sequence[ClassCase], *, colours: Sequence[Colour]) -> Markup:
    """Draw each case as a row of four pictures. Hatched: nothing is known there.

    Args:
        cases: what to draw; none gives an empty fragment. Maps of more than ``MAP_SIDE`` pixels
            are thinned: of each block its middle pixel is shown.
        colours: of the classes.
    """
    if not cases:
        return Markup("")
    return picture_table(_COLUMNS, (_row(case, colours) for case in cases))


def class_legend(names: Sequence[str], colours: Sequence[Colour]) -> Markup:
    """Return swatches of the classes with their names."""
    items = Markup("").join(
        Markup(
            '<span style="white-space:nowrap"><span aria-hidden="true" style="display:inline-block;'
            "width:0.9em;height:0.9em;border:1px solid #888;background:#{};vertical-align:-0.1em"
            '"></span> {}</span> '
        ).format("{:02x}{:02x}{:02x}".format(*colour), name)
        for name, colour in zip(names, colours, strict=True)
    )
    return Markup('<p class="note">{}</p>').format(items)


def class_colours(
    classes: UInt8[ndarray, "h w"], colours: Sequence[Colour]
) -> UInt8[ndarray, "h w 3"]:
    """Return the colour of each pixel; grey where there is no class."""
    table = np.full((256, 3), 128, np.uint8)
    table[: len(colours)] = colours
    return np.asarray(table[classes])


def _row(case: ClassCase, colours: Sequence[Colour]) -> Markup:
    both = case.both
    share = float((case.predicted == case.truth)[both].mean()) if both.any() else float("nan")
    said = f"{share:.1%} of the pixels right" if both.any() else "no truth"
    wrong = np.where((case.predicted != case.truth)[..., None], _WRONG, _RIGHT).astype(np.uint8)
    cells = (
        Cell(rgb=case.image.picture(side=MAP_SIDE), kind="photo", words="image"),
        _map(class_colours(case.predicted, colours), case.predicted != NO_CLASS, "prediction"),
        _map(class_colours(case.truth, colours), case.truth != NO_CLASS, "truth"),
        _map(wrong, both, f"wrong pixels: {said}"),
    )
    return place_row(case.name, said, cells)


def _map(rgb: UInt8[ndarray, "h w 3"], valid: Bool[ndarray, "h w"], words: str) -> Cell:
    step = math.ceil(max(valid.shape) / MAP_SIDE)
    inside = tuple(slice(step // 2, side // step * step or None, step) for side in valid.shape)
    small, there = rgb[inside], valid[inside]
    factor = enlargement(max(there.shape), wanted=MAP_SIDE)
    shown = hatched(enlarged(small, factor), enlarged(there, factor))
    return Cell(rgb=shown, kind="map", words=words)
