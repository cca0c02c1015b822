"""Files of the tortilla format: rows of a Parquet table at the end, their bytes before it.

A file begins with ``#y``, then the place of the table and its length (unsigned, 64 bits, little
end first). A row may be a tortilla itself; the offsets of its rows count from its own beginning.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from geodino.errors import SourceError

MAGIC = b"#y"
_HEAD = struct.Struct("<2sQQ")
_NESTED = "TORTILLA"
_DEEPEST = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A file within the file."""

    id: str
    format: str
    """``GTiff``, ``HDF5`` or ``TORTILLA``."""

    offset: int
    """Of its first byte, from the beginning of the outermost file."""

    length: int
    columns: Mapping[str, Any]
    """All columns of the table."""

    @property
    def is_nested(self) -> bool:
        """Whether it has rows itself."""
        return self.format.upper() == _NESTED


def read_rows(path: Path, inside: Row | None = None) -> list[Row]:
    """Read the table of a tortilla, or of a tortilla within it.

    Raises:
        SourceError: no such file, not a tortilla, or cut off.
    """
    base = inside.offset if inside else 0
    what = f"{path} ({inside.id})" if inside else str(path)
    try:
        end = base + inside.length if inside else path.stat().st_size
        with path.open("rb") as file:
            file.seek(base)
            head = file.read(_HEAD.size)
            if len(head) < _HEAD.size or head[:2] != MAGIC:
                raise SourceError(
                    f"{what} is no tortilla: it begins with {head[:2]!r}, not {MAGIC!r}. Name a "
                    "file with the ending .tortilla as its publisher made it."
                )
            _, offset, length = _HEAD.unpack(head)
            if length == 0 or base + offset + length > end:
                raise SourceError(
                    f"{what} is cut off: its table should end at byte {base + offset + length}, but "
                    f"it ends at byte {end}. Download it again."
                )
            file.seek(base + offset)
            content = file.read(length)
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}). Restore it.") from error
    return [_row(values, base, end, what) for values in _table(content, what)]


def read_leaves(path: Path, row: Row, *, depth: int = 0) -> list[Row]:
    """Return the rows below a row that are no tortillas, in order; itself if it is none.

    Raises:
        SourceError: a table is damaged, or they are nested deeper than any data set does.
    """
    if not row.is_nested:
        return [row]
    if depth >= _DEEPEST:
        raise SourceError(f"{path} nests its rows too deeply at {row.id}. Download it again.")
    return [leaf for r in read_rows(path, row) for leaf in read_leaves(path, r, depth=depth + 1)]


def gdal_name(path: Path, row: Row) -> str:
    """Return how GDAL opens a row without reading the rest of the file."""
    return f"/vsisubfile/{row.offset}_{row.length},{path}"


def content_of(path: Path, row: Row) -> bytes:
    """Read the bytes of a row."""
    with path.open("rb") as file:
        file.seek(row.offset)
        return file.read(row.length)


def _table(content: bytes, what: str) -> list[dict[str, Any]]:
    try:
        rows: list[dict[str, Any]] = pq.read_table(pa.BufferReader(content)).to_pylist()
    except (pa.ArrowException, OSError, ValueError) as error:
        said = str(error).split("\n")[0]
        raise SourceError(
            f"The table at the end of {what} cannot be read ({said}). Download the file again."
        ) from error
    return rows


def _row(values: dict[str, Any], base: int, end: int, what: str) -> Row:
    needed = ("tortilla:id", "tortilla:file_format", "tortilla:offset", "tortilla:length")
    lacking = [name for name in needed if values.get(name) is None]
    if lacking:
        raise SourceError(f"The table of {what} lacks {lacking[0]!r}. Download the file again.")
    offset, length = base + int(values["tortilla:offset"]), int(values["tortilla:length"])
    if offset < base or length < 0 or offset + length > end:
        raise SourceError(
            f"{what}: the row {values['tortilla:id']!r} should lie in bytes {offset} to "
            f"{offset + length}, outside of the file ({end} bytes). Download it again."
        )
    return Row(
        id=str(values["tortilla:id"]),
        format=str(values["tortilla:file_format"]),
        offset=offset,
        length=length,
        columns=values,
    )
