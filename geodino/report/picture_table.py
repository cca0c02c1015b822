"""Pictures of places in a table: a row for each place, under a line that says what is to be seen."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup
from numpy import ndarray

from geodino.report.pictures import Kind, data_uri, stretched


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """An image, and how it is shown."""

    values: Float[ndarray, "c h w"]
    """One band or three, any values; invalid where not finite."""

    low: Float[ndarray, " c"]
    """What becomes black, per band."""

    high: Float[ndarray, " c"]
    """What becomes white, per band."""

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.values.shape[1], self.values.shape[2]

    def picture(self, *, side: int) -> UInt8[ndarray, "h2 w2 3"]:
        """Return what is shown, hatched where invalid; its longest side is about ``side`` pixels."""
        valid = np.isfinite(self.values).all(axis=0)
        values = np.where(valid, self.values, 0.0)
        return stretched(values, valid, low=self.low, high=self.high, side=side)


@dataclass(frozen=True, kw_only=True, slots=True)
class Cell:
    """One picture of a place."""

    rgb: UInt8[ndarray, "h w 3"]
    kind: Kind
    words: str
    """What it shows."""


def picture_table(columns: Sequence[str], rows: Iterable[Markup]) -> Markup:
    """Return the table of rows that :func:`place_row` made.

    Args:
        columns: their heads.
        rows: of all places.
    """
    heads = Markup("").join(Markup('<th scope="col">{}</th>').format(name) for name in columns)
    return Markup(
        '<div class="scroll"><table class="maps heights"><thead><tr>{}</tr></thead>\n'
        "<tbody>{}</tbody></table></div>\n"
    ).format(heads, Markup("").join(rows))


def place_row(name: str, said: str, cells: Sequence[Cell]) -> Markup:
    """Return the pictures of a place, under its name and what is said of it."""
    pictures = Markup("").join(
        Markup('<td><img src="{}" alt="{}: {}" width="{}" height="{}"></td>').format(
            data_uri(cell.rgb, kind=cell.kind),
            name,
            cell.words,
            cell.rgb.shape[1],
            cell.rgb.shape[0],
        )
        for cell in cells
    )
    head = Markup('<tr><th scope="rowgroup" colspan="{}">{}: {}</th></tr>').format(
        len(cells), name, said
    )
    return Markup("{}<tr>{}</tr>\n").format(head, pictures)
