"""Classes of pixels: what a user declares of them, and how stored values become their numbers."""

import colorsys
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
from jaxtyping import Int64, Integer, UInt8
from pydantic import field_validator

from geodino.config import Config
from geodino.data.labelled.sets import IGNORED
from geodino.errors import RecipeError, SourceError
from geodino.geo.align import OfClasses

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

Value = int | str
"""What stands for a class: a stored number, a colour such as ``#00ff00``, or a word of a column."""

Layout = Literal["auto", "masks", "rasters", "vectors", "loveda", "isaid"]

_HEX = re.compile(r"#[0-9a-fA-F]{6}")
_SHOWN = 12

_COLOURS: tuple[Colour, ...] = (
    (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0),
    (204, 121, 167), (120, 120, 120), (102, 51, 0), (160, 220, 90), (80, 40, 140), (250, 190, 190),
)  # fmt: skip
"""Colours that people with any eyes tell apart (the first seven: Okabe and Ito), then some more."""


class ClassLabelsConfig(Config):
    """How labels that give every pixel a class are read."""

    layout: Layout = "auto"
    """How files lie. ``masks``: a mask for each image, of its stem and size; ``rasters``: class
    rasters on any grid, by place; ``vectors``: polygons of a vector file; ``loveda`` and ``isaid``:
    the folders of those sets. ``auto``: known folders, vector files by their ending, masks where
    each image has one of its stem, else rasters."""

    classes: dict[str, Value | tuple[Value, ...]] | None = None
    """Name of each class, and the stored value or values that mean it: numbers, ``"#rrggbb"`` in
    masks that are coloured, or words in the column of a vector file. Their order numbers them.
    ``null``: what the files themselves name (maps of geodino do, and columns of vector files)."""

    colours: dict[str, str] | None = None
    """Colour of some classes, ``"#rrggbb"``, for maps and reports."""

    ignored: tuple[Value, ...] = ()
    """Stored values that are neither learnt from nor scored, beside the nodata tag and 255."""

    other: Literal["refuse", "ignore"] = "refuse"
    """What becomes of values that are no class and not ignored: a sentence, or ignored as well."""

    background: str | None = None
    """A class that is predicted but left out of the mean IoU."""

    suffix: str = ""
    """What follows the image's stem in the name of its mask: ``_mask`` for ``a.jpg``, ``a_mask.png``."""

    column: str = "class"
    """Column of a vector file that holds the class."""

    elsewhere: str | None = None
    """Class of pixels that no polygon covers; ``null``: they are ignored."""

    statistic: OfClasses = "majority"
    """How finer label pixels become one of the image, and of the grid the model sees (``gsd_m``): the
    ``majority`` of them, or the ``nearest``. Coarser ones are always taken by the nearest."""

    @field_validator("colours")
    @classmethod
    def _are_colours(cls, values: dict[str, str] | None) -> dict[str, str] | None:
        for name, value in (values or {}).items():
            if not _HEX.fullmatch(value):
                raise ValueError(f"the colour of {name} is not of the form #rrggbb")
        return values


@dataclass(frozen=True, kw_only=True)
class ClassTable:
    """The classes of a source, numbered from 0, and the stored values that mean each.

    Raises:
        RecipeError: none or more than 255 of them, a value of two classes, or words where numbers
            are needed.
    """

    names: tuple[str, ...]
    values: tuple[tuple[Value, ...], ...]
    colours: tuple[Colour, ...]
    ignored: frozenset[Value] = frozenset()
    other: Literal["refuse", "ignore"] = "refuse"

    def __post_init__(self) -> None:
        if not 1 < len(self.names) <= IGNORED:
            raise RecipeError(
                f"labels.classes names {len(self.names)} class(es): a map needs from 2 to {IGNORED} of them."
            )
        seen: dict[Value, str] = {}
        for name, values in zip(self.names, self.values, strict=True):
            for value in values:
                if value in seen:
                    raise RecipeError(
                        f"labels.classes: the value {value!r} means both {seen[value]} and {name}. "
                        "Give it to one of them."
                    )
                seen[value] = name

    @classmethod
    def of(
        cls,
        config: ClassLabelsConfig,
        found: Mapping[str, Value | tuple[Value, ...]] | None = None,
        hint: Callable[[], str] = str,
    ) -> "ClassTable":
        """Return the declared classes, or those the files name.

        Args:
            config: what is declared.
            found: names and values in the files; None where they say nothing.
            hint: says what the files hold instead, for the message.

        Raises:
            RecipeError: neither says anything, or what they say does not fit together.
        """
        said = found if config.classes is None else config.classes
        if not said:
            held = hint()
            raise RecipeError(
                "labels.classes is missing, and the label files name no classes. "
                + (f"{held}. " if held else "")
                + "Declare what stored values mean: `labels: {classes: {water: 1, forest: [2, 3]}}` in "
                "a recipe, or --set 'labels.classes={water: 1, forest: [2, 3]}'."
            )
        names = tuple(said)
        for word in (config.background, config.elsewhere, *(config.colours or {})):
            if word is not None and word not in names:
                raise RecipeError(
                    f"labels: {word!r} is none of the classes {', '.join(names)}. Name one of them."
                )
        own = {name: rgb(text) for name, text in (config.colours or {}).items()}
        usual = default_colours(len(names))
        return cls(
            names=names,
            values=tuple(v if isinstance(v, tuple) else (v,) for v in said.values()),
            colours=tuple(own.get(n, c) for n, c in zip(names, usual, strict=True)),
            ignored=frozenset(config.ignored),
            other=config.other,
        )

    @property
    def are_colours(self) -> bool:
        """Whether values are colours of masks."""
        return all(isinstance(v, str) and _HEX.fullmatch(v) for vs in self.values for v in vs)

    @property
    def are_words(self) -> bool:
        """Whether some values are words of a column."""
        return any(isinstance(v, str) for vs in self.values for v in vs) and not self.are_colours

    @cached_property
    def _known(self) -> tuple[Int64[np.ndarray, " n"], UInt8[np.ndarray, " n"]]:
        """Stored numbers that are known, ascending, and the class of each."""
        pairs: dict[int, int] = {stored(v): IGNORED for v in self.ignored}
        for number, values in enumerate(self.values):
            pairs |= {stored(v): number for v in values}
        ordered = sorted(pairs.items())
        return (
            np.array([value for value, _ in ordered], dtype=np.int64),
            np.array([number for _, number in ordered], dtype=np.uint8),
        )

    def numbers(
        self, values: Integer[np.ndarray, "*s"], *, ignored: float | None = None, source: str
    ) -> UInt8[np.ndarray, "*s"]:
        """Return the class of stored values, ``IGNORED`` where they do not count.

        A declared class stands above a nodata tag: where the tag names a class, it is a class.

        Args:
            values: as stored; colours as ``red * 65536 + green * 256 + blue``.
            ignored: the file's nodata tag; None without one. 255 never counts unless it is a class.
            source: what to call the file.

        Raises:
            SourceError: values that are no class, unless ``other`` ignores them.
        """
        known, classes = self._known
        places = np.minimum(np.searchsorted(known, values), len(known) - 1)
        is_known = known[places] == values
        found: UInt8[np.ndarray, "*s"] = np.where(is_known, classes[places], np.uint8(IGNORED))
        if self.other == "refuse" and not is_known.all():
            strange = np.unique(values[~is_known])
            strange = strange[(strange != IGNORED) | self.are_colours]
            strange = strange[strange != ignored] if ignored is not None else strange
            if strange.size:
                raise SourceError(self._strange(strange, source))
        return found

    def _strange(self, values: Int64[np.ndarray, " n"], source: str) -> str:
        shown = [f"#{v:06x}" if self.are_colours else str(v) for v in values[:_SHOWN].tolist()]
        more = f" and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
        return (
            f"{source} holds {', '.join(shown)}{more}, which labels.classes does not name. Add "
            "them to a class, list them in labels.ignored, or set labels.other: ignore."
        )


def stored(value: Value) -> int:
    """Return the number that is stored for a value: itself, or that of a colour.

    Raises:
        RecipeError: it is a word.
    """
    if isinstance(value, int):
        return value
    if not _HEX.fullmatch(value):
        raise RecipeError(
            f"labels: {value!r} is no stored value: rasters hold numbers, or colours such as "
            "'#00ff00'. Words are for the column of a vector file."
        )
    return int(value[1:], 16)


def rgb(text: str) -> Colour:
    """Return red, green and blue of ``#rrggbb``."""
    number = int(text[1:], 16)
    return number >> 16, number >> 8 & 255, number & 255


def default_colours(count: int) -> tuple[Colour, ...]:
    """Return as many colours that are told apart; further ones go round the circle of hues."""
    more = []
    for i in range(max(0, count - len(_COLOURS))):
        red, green, blue = colorsys.hsv_to_rgb((i * 0.618034) % 1.0, 0.6, 0.85 - 0.25 * (i % 2))
        more.append((round(255 * red), round(255 * green), round(255 * blue)))
    return (*_COLOURS, *more)[:count]


def as_colours(pixels: UInt8[np.ndarray, "3 h w"]) -> Int64[np.ndarray, "h w"]:
    """Return ``red * 65536 + green * 256 + blue`` of each pixel."""
    red, green, blue = pixels.astype(np.int64)
    joined: Int64[np.ndarray, "h w"] = (red << 16) | (green << 8) | blue
    return joined


def words_of(names: Sequence[str], *, most: int = 12) -> str:
    """Return names of classes in a line, the first few of many."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
