"""A labelled set made of what a user called images and labels, and what was decided on the way."""

from dataclasses import dataclass

from geodino.data.labelled.classes import Colour
from geodino.data.labelled.sets import LabelledSet, PartName
from geodino.data.splits import Split
from geodino.data.tiles import TileIndex


@dataclass(frozen=True, kw_only=True)
class OpenedSet:
    """A labelled set, and what was decided on the way."""

    set: LabelledSet
    colours: tuple[Colour, ...]
    """Of each class."""

    layout: str
    """How its files lie."""

    unlabelled: frozenset[PartName] = frozenset()
    """Parts whose labels are not public."""

    notes: tuple[str, ...] = ()
    """Decisions, as sentences for the run card."""

    images: TileIndex | None = None
    """The tiles, where images are; None for the folders of known sets."""

    split: Split | None = None
    """How the ground is split; None where whole images are."""
