"""Maps of classes in a report: image, prediction, truth and where they differ, to one legend."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from markupsafe import Markup
from numpy import ndarray

from geodino.report.pictures import data_uri, enlarged, enlargement, hatched, stretched

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
    image: Float[ndarray, "c h w"]
    """One band or three, any values; invalid where not finite."""

    low: Float[ndarray, " c"]
    """What becomes black, per band."""

    high: Float[ndarray, " c"]
    """What becomes white, per band."""

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
    rows = Markup("").join(_row(case, colours) for case in cases)
    heads = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in _COLUMNS)
    return Markup(
        '<div class="scroll"><table class="maps heights"><thead><tr>{}</tr></thead>\n'
        "<tbody>{}</tbody></table></div>\n"
    ).format(heads, rows)


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
    seen = np.isfinite(case.image).all(axis=0)
    image = stretched(
        np.where(seen, case.image, 0.0), seen, low=case.low, high=case.high, side=MAP_SIDE
    )
    both = case.both
    share = float((case.predicted == case.truth)[both].mean()) if both.any() else float("nan")
    said = f"{share:.1%} of the pixels right" if both.any() else "no truth"
    wrong = np.where((case.predicted != case.truth)[..., None], _WRONG, _RIGHT).astype(np.uint8)
    pictures = (
        (data_uri(image, kind="photo"), image, "image"),
        _map(class_colours(case.predicted, colours), case.predicted != NO_CLASS, "prediction"),
        _map(class_colours(case.truth, colours), case.truth != NO_CLASS, "truth"),
        _map(wrong, both, f"wrong pixels: {said}"),
    )
    cells = Markup("").join(
        Markup('<td><img src="{}" alt="{}: {}" width="{}" height="{}"></td>').format(
            link, case.name, words, rgb.shape[1], rgb.shape[0]
        )
        for link, rgb, words in pictures
    )
    caption = Markup('<tr><th scope="rowgroup" colspan="4">{}: {}</th></tr>').format(
        case.name, said
    )
    return Markup("{}<tr>{}</tr>\n").format(caption, cells)


def _map(
    rgb: UInt8[ndarray, "h w 3"], valid: Bool[ndarray, "h w"], words: str
) -> tuple[str, UInt8[ndarray, "h2 w2 3"], str]:
    step = math.ceil(max(valid.shape) / MAP_SIDE)
    inside = tuple(slice(step // 2, side // step * step or None, step) for side in valid.shape)
    small, there = rgb[inside], valid[inside]
    factor = enlargement(max(there.shape), wanted=MAP_SIDE)
    shown = hatched(enlarged(small, factor), enlarged(there, factor))
    return data_uri(shown, kind="map"), shown, words
