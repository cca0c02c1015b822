"""Is a file complete? Damage that a header does not show, found without decoding a pixel.

A TIFF cut off in transfer often opens well: its directory stands at the front. GDAL notices only
when a missing block is read, and a cut JPEG it fills with grey. Here the place of every block is
compared with the size of the file instead.
"""

import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4,
          16: 8, 17: 8, 18: 8}  # fmt: skip
"""Bytes of each TIFF field type (TIFF 6.0, page 15; BigTIFF adds 16 to 18)."""

_PAIRS = {273: 279, 324: 325}
"""StripOffsets and StripByteCounts, TileOffsets and TileByteCounts."""

_SUB_IFDS = 330
_TAIL = 4096


def missing(path: Path) -> str | None:
    """Return what a local file lacks, in words, or None if it looks complete.

    TIFF: every strip and tile of every directory (overviews and masks too) must end within the
    file. JPEG and PNG: the end marker must be there. Other formats: only emptiness is noticed.
    """
    size = path.stat().st_size
    if size == 0:
        return "it is empty (0 bytes)"
    with path.open("rb") as handle:
        head = handle.read(4)
        if head[:2] in (b"II", b"MM"):
            return _missing_in_tiff(handle, size)
        handle.seek(max(0, size - _TAIL))
        tail = handle.read()
    if head[:3] == b"\xff\xd8\xff" and b"\xff\xd9" not in tail:
        return "it is cut off: the end marker of a JPEG is missing"
    if head == b"\x89PNG" and b"IEND" not in tail:
        return "it is cut off: the last chunk of a PNG is missing"
    return None


def _missing_in_tiff(handle: BinaryIO, size: int) -> str | None:
    try:
        end = _last_byte(handle)
    except (struct.error, KeyError, OverflowError):
        return f"it is cut off or damaged: its directory cannot be followed within {size:,} bytes"
    if end > size:
        return f"it is cut off: its blocks need {end:,} bytes, the file has {size:,}"
    return None


def _last_byte(handle: BinaryIO) -> int:
    """Return the end of the last block of a TIFF; ``struct.error`` where the directory is cut."""
    handle.seek(0)
    order = "<" if handle.read(2) == b"II" else ">"
    (version,) = _unpack(handle, order + "H")
    big = version == 43
    if big:
        _unpack(handle, order + "HH")
    word = order + ("Q" if big else "I")
    entry_count = order + ("Q" if big else "H")
    entry = order + ("HHQ8s" if big else "HHI4s")
    end, seen = 0, set()
    waiting = list(_unpack(handle, word))
    while waiting:
        offset = waiting.pop()
        if offset == 0 or offset in seen:
            continue
        seen.add(offset)
        handle.seek(offset)
        (count,) = _unpack(handle, entry_count)
        entries = [_unpack(handle, entry) for _ in range(count)]
        waiting += _unpack(handle, word)
        fields = {tag: (kind, n, raw) for tag, kind, n, raw in entries}
        if _SUB_IFDS in fields:
            waiting += _values(handle, order, *fields[_SUB_IFDS]).tolist()
        for offsets_tag, counts_tag in _PAIRS.items():
            if offsets_tag in fields and counts_tag in fields:
                starts = _values(handle, order, *fields[offsets_tag])
                lengths = _values(handle, order, *fields[counts_tag])
                n = min(len(starts), len(lengths))
                # Offset 0 is GDAL's sign for a block that was never written (a sparse file).
                ends = np.where(starts[:n] > 0, starts[:n] + lengths[:n], 0)
                end = max(end, int(ends.max(initial=0)))
    return end


def _values(handle: BinaryIO, order: str, kind: int, count: int, raw: bytes) -> NDArray[np.int64]:
    length = _SIZES[kind] * count
    if length > len(raw):
        (offset,) = struct.unpack(order + ("Q" if len(raw) == 8 else "I"), raw)
        handle.seek(offset)
        raw = handle.read(length)
    code = {1: "u1", 2: "u2", 4: "u4", 8: "u8"}[_SIZES[kind]]
    if len(raw) < length:
        raise struct.error("the list of blocks is cut off")
    return np.frombuffer(raw[:length], dtype=order + code).astype(np.int64)


def _unpack(handle: BinaryIO, form: str) -> tuple[Any, ...]:
    return struct.unpack(form, handle.read(struct.calcsize(form)))
