"""The container of a cloud-optimised GeoTIFF: header, directories, and where each tile goes."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodino.io.cog.journal import FRAME
from geodino.io.cog.layout import Layout
from geodino.io.cog.template import Field

_STRUCTURE = (
    b"LAYOUT=IFDS_BEFORE_DATA\n"
    b"BLOCK_ORDER=ROW_MAJOR\n"
    b"BLOCK_LEADER=SIZE_AS_UINT4\n"
    b"BLOCK_TRAILER=LAST_4_BYTES_REPEATED\n"
    # The space is room for YES: a program that changes the file in place says so here.
    b"KNOWN_INCOMPATIBLE_EDITION=NO\n "
)
GHOST = b"GDAL_STRUCTURAL_METADATA_SIZE=%06d bytes\n" % len(_STRUCTURE) + _STRUCTURE
"""What GDAL's COG driver writes between header and first directory."""

CLASSIC_LIMIT = 2**32
"""Offsets of a classic TIFF have 32 bits."""

_SUBFILE, _WIDTH, _HEIGHT = 254, 256, 257
_TILE_WIDTH, _TILE_HEIGHT, _OFFSETS, _LENGTHS = 322, 323, 324, 325
_STRIPS = {273, 278, 279}
_PLACE = {_SUBFILE, _WIDTH, _HEIGHT, _TILE_WIDTH, _TILE_HEIGHT, _OFFSETS, _LENGTHS, *_STRIPS}
"""What the template says of its own pixels."""

_OF_THE_MAP = {33550, 33922, 34264, 34735, 34736, 34737, 42112}
"""Georeference and GDAL's metadata: of the full resolution, overviews follow it."""

_SHORT, _LONG, _LONG8 = 3, 4, 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Container:
    """Everything of a file that stands before the tiles."""

    head: bytes
    """Header and directories."""

    size: int
    """Bytes of the whole file."""

    is_big: bool
    """Whether it is a BigTIFF."""


def container(
    layout: Layout,
    described: Sequence[Field],
    sizes: Sequence[NDArray[np.uint32]],
    *,
    big: bool | None,
) -> Container:
    """Lay out a file: directories from full resolution down, tiles from the smallest overview up.

    Args:
        layout: of the map.
        described: what the map is, from the template.
        sizes: compressed bytes of every tile ``[plane, row, column]``, level by level; 0 for those not stored.
        big: BigTIFF or not; None takes it where a classic TIFF would be too large.
    """
    is_big = bool(big)
    made = _container(layout, described, sizes, is_big=is_big)
    if made.size >= CLASSIC_LIMIT and not is_big and big is None:
        made = _container(layout, described, sizes, is_big=True)
    if made.size >= CLASSIC_LIMIT and not made.is_big:
        raise ValueError(f"{made.size:,} bytes do not fit in a classic TIFF")
    return made


def _container(
    layout: Layout,
    described: Sequence[Field],
    sizes: Sequence[NDArray[np.uint32]],
    *,
    is_big: bool,
) -> Container:
    start = (16 if is_big else 8) + len(GHOST)
    start += -start % 8
    # Where tiles lie does not change how long the directories are: they are made twice.
    zeros = [np.zeros(level.size, dtype=np.int64) for level in sizes]
    directories = _directories(layout, described, sizes, zeros, at=start, is_big=is_big)
    end = start + sum(map(len, directories))
    offsets: list[NDArray[np.int64]] = []
    for level in reversed(sizes):
        flat = level.ravel().astype(np.int64)
        taken = np.where(flat > 0, flat + FRAME, 0)
        ends = end + np.cumsum(taken)
        offsets.insert(0, np.where(flat > 0, ends - taken + 4, 0))
        end = int(ends[-1])
    if not is_big and end >= CLASSIC_LIMIT:
        return Container(head=b"", size=end, is_big=False)
    directories = _directories(layout, described, sizes, offsets, at=start, is_big=is_big)
    header = (
        struct.pack("<2sHHHQ", b"II", 43, 8, 0, start)
        if is_big
        else struct.pack("<2sHI", b"II", 42, start)
    )
    head = (header + GHOST).ljust(start, b"\0") + b"".join(directories)
    return Container(head=head, size=end, is_big=is_big)


def _directories(
    layout: Layout,
    described: Sequence[Field],
    sizes: Sequence[NDArray[Any]],
    offsets: Sequence[NDArray[Any]],
    *,
    at: int,
    is_big: bool,
) -> list[bytes]:
    """Return one directory a level, each with its values behind it; ``at`` is where they begin."""
    found: list[bytes] = []
    for level, (lengths, places) in enumerate(zip(sizes, offsets, strict=True)):
        height, width = layout.size(level)
        kept = [
            field
            for field in described
            if field.tag not in _PLACE and not (level and field.tag in _OF_THE_MAP)
        ]
        fields = [
            *kept,
            _field(_WIDTH, _LONG, [width]),
            _field(_HEIGHT, _LONG, [height]),
            _field(_TILE_WIDTH, _SHORT, [layout.block]),
            _field(_TILE_HEIGHT, _SHORT, [layout.block]),
            _field(_OFFSETS, _LONG8 if is_big else _LONG, places),
            _field(_LENGTHS, _LONG, lengths.ravel()),
        ]
        if level:
            fields.append(_field(_SUBFILE, _LONG, [1]))  # a reduced version of another image
        is_last = level == len(sizes) - 1
        found.append(_directory(fields, at, is_big=is_big, is_last=is_last))
        at += len(found[-1])
    return found


def _field(tag: int, kind: int, values: Sequence[int] | NDArray[Any]) -> Field:
    form = {_SHORT: "<u2", _LONG: "<u4", _LONG8: "<u8"}[kind]
    return Field(tag, kind, len(values), np.asarray(values).astype(form).tobytes())


def _directory(fields: Sequence[Field], at: int, *, is_big: bool, is_last: bool) -> bytes:
    word, count_form, entry = ("Q", "<Q", "<HHQ") if is_big else ("I", "<H", "<HHI")
    inline = 8 if is_big else 4
    length = struct.calcsize(count_form) + len(fields) * (20 if is_big else 12) + inline
    values_at = at + length + (-length % 8)
    out, values = bytearray(struct.pack(count_form, len(fields))), bytearray()
    for field in sorted(fields, key=lambda field: field.tag):
        out += struct.pack(entry, field.tag, field.kind, field.count)
        if len(field.data) <= inline:
            out += field.data.ljust(inline, b"\0")
        else:
            out += struct.pack(f"<{word}", values_at + len(values))
            values += field.data + b"\0" * (-len(field.data) % 8)
    following = 0 if is_last else values_at + len(values)
    out += struct.pack(f"<{word}", following)
    return bytes(out.ljust(values_at - at, b"\0") + values)
