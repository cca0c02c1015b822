"""Boxes in a report: each image twice, with the true boxes and with the found ones."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from markupsafe import Markup
from numpy import ndarray

from geodino.report.class_maps import Colour, class_legend
from geodino.report.picture_table import Cell, Seen, picture_table, place_row

BOX_SIDE = 512
"""Longest side of a picture in the page, pixels."""

_RIGHT, _WRONG, _UNCOUNTED = (86, 180, 233), (213, 94, 0), (150, 150, 150)
_COLUMNS = ("true", "found")


@dataclass(frozen=True, kw_only=True, slots=True)
class ShownBoxes:
    """Boxes on a picture."""

    xyxy: Float[ndarray, "n 4"]
    """Left, top, right, bottom, in pixels of the image."""

    right: Bool[ndarray, " n"]
    """A true one that was found, or a found one that is true."""

    wrong: Bool[ndarray, " n"]
    """A true one that was missed, or a found one that is not true."""

    @property
    def colours(self) -> list[Colour]:
        """Of each box; grey where it is neither right nor wrong."""
        pairs = zip(self.right.tolist(), self.wrong.tolist(), strict=True)
        return [_RIGHT if right else _WRONG if wrong else _UNCOUNTED for right, wrong in pairs]


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxCase:
    """One image, or a window of it."""

    name: str
    image: Seen

    true: ShownBoxes
    found: ShownBoxes


def box_panels(cases: Sequence[BoxCase]) -> Markup:
    """Draw each case as a row of two pictures; none gives an empty fragment."""
    if not cases:
        return Markup("")
    return picture_table(_COLUMNS, map(_row, cases))


def box_legend() -> Markup:
    """Return what the colours of the boxes mean."""
    names = ("found and true", "missed, or wrong", "not counted")
    return class_legend(names, (_RIGHT, _WRONG, _UNCOUNTED))


def outlined(
    rgb: UInt8[ndarray, "h w 3"], xyxy: Float[ndarray, "n 4"], colours: Sequence[Colour]
) -> UInt8[ndarray, "h w 3"]:
    """Draw frames two pixels wide, in a colour each, with a dark line around them."""
    made = rgb.copy()
    height, width = made.shape[:2]
    for (left, top, right, bottom), colour in zip(
        np.rint(xyxy).astype(int).tolist(), colours, strict=True
    ):
        for grow, ink in ((1, (0, 0, 0)), (0, colour), (-1, colour)):
            x0, y0 = max(left - grow, 0), max(top - grow, 0)
            x1, y1 = min(right + grow, width) - 1, min(bottom + grow, height) - 1
            if x1 < x0 or y1 < y0:
                continue
            made[[y0, y1], x0 : x1 + 1] = ink
            made[y0 : y1 + 1, [x0, x1]] = ink
    return made


def _row(case: BoxCase) -> Markup:
    image, (height, width) = case.image.picture(side=BOX_SIDE), case.image.size
    scale = np.array([image.shape[1] / width, image.shape[0] / height] * 2)
    missed, wrong = int(case.true.wrong.sum()), int(case.found.wrong.sum())
    said = (
        f"{int(case.true.right.sum())} of {int((case.true.right | case.true.wrong).sum())} objects "
        f"found, {missed} missed, {wrong} wrong"
    )
    cells = [
        Cell(
            rgb=outlined(image, boxes.xyxy * scale, boxes.colours),
            kind="photo",
            words=f"{what} boxes",
        )
        for what, boxes in zip(_COLUMNS, (case.true, case.found), strict=True)
    ]
    return place_row(case.name, said, cells)
