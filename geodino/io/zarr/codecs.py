"""From the bytes of a stored chunk to its pixels: the codecs of zarr formats 2 and 3.

zarr-python sends every chunk through an event loop and a thread of its own, which takes as long
as decompressing it, and does not tell a chunk that was never written from one that holds the fill
value. So chunks are decoded here, by numcodecs, from the list of codecs in the metadata.
"""

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from lzma import LZMAError
from math import prod
from typing import Any, Protocol, runtime_checkable
from zlib import error as ZlibError

import google_crc32c
import numcodecs
import numpy as np
from numpy.typing import NDArray

from geodino.errors import SourceError
from geodino.io.zarr.open import ZarrArray

DAMAGE = (
    ValueError,
    RuntimeError,
    OSError,
    EOFError,
    ZlibError,
    LZMAError,
    MemoryError,
    SystemError,
)
"""What the codecs raise on bytes that are not theirs; the last two where a length is nonsense."""

_BYTES_TO_BYTES = (
    "adler32", "blosc", "bz2", "crc32", "crc32c", "fletcher32", "gzip", "lz4", "lzma", "shuffle",
    "zlib", "zstd",
)  # fmt: skip
"""Codecs of numcodecs that format 3 may name ``numcodecs.X``, bytes on both sides."""


@runtime_checkable
class Stage(Protocol):
    """A codec of numcodecs."""

    def decode(self, buf: Any) -> Any:
        """Undo one step of the encoding."""


@dataclass(frozen=True, slots=True)
class ChunkCodec:
    """Decodes chunks of one shape.

    Args:
        shape: of a chunk.
        dtype: stored type, with its byte order.
        axes: the axes of the chunk in the order they are stored in.
        stages: codecs in the order of decoding.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    axes: tuple[int, ...]
    stages: tuple[Stage, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of a decoded chunk."""
        return prod(self.shape) * self.dtype.itemsize

    def decode(self, data: bytes) -> NDArray[Any]:
        """Return the values of a chunk, read-only, of shape ``shape``.

        Raises:
            ValueError, RuntimeError and others: see ``DAMAGE``.
        """
        decoded: Any = data
        for stage in self.stages:
            decoded = stage.decode(decoded)
        values = np.frombuffer(decoded, dtype=self.dtype)
        if values.size != prod(self.shape):
            raise ValueError(f"{values.size} values where {prod(self.shape)} belong")
        stored = values.reshape([self.shape[axis] for axis in self.axes])
        return stored.transpose(np.argsort(self.axes))


@dataclass(frozen=True, slots=True)
class Shards:
    """How chunks lie together in one stored object (zarr's ``sharding_indexed``).

    Args:
        counts: chunks in a shard, along each axis.
        index: decodes the table of (offset, bytes) at the start or the end of a shard.
        index_bytes: length of that table.
        at_end: where it is.
    """

    counts: tuple[int, ...]
    index: ChunkCodec
    index_bytes: int
    at_end: bool


def codecs_of(array: ZarrArray, name: str) -> tuple[ChunkCodec, Shards | None]:
    """Return what decodes the chunks of an array, and how they lie in shards, if they do.

    Args:
        array: from its metadata alone.
        name: what messages call it.

    Raises:
        SourceError: it needs a codec that is not known here.
    """
    document: Mapping[str, Any] = array.metadata.to_dict()
    if document["zarr_format"] == 2:
        shape = tuple(document["chunks"])
        axes = range(len(shape))
        encoded = [*(document["filters"] or ()), *filter(None, [document["compressor"]])]
        codec = ChunkCodec(
            shape,
            array.dtype,
            tuple(axes if document["order"] == "C" else reversed(axes)),
            tuple(_checked(numcodecs.get_codec(dict(config))) for config in reversed(encoded)),
        )
        return codec, None
    names = [_name(codec) for codec in document["codecs"]]
    shape = tuple(document["chunk_grid"]["configuration"]["chunk_shape"])
    if names[0] != "sharding_indexed":
        return _chunk_codec(document["codecs"], shape, array.dtype, name), None
    if len(names) > 1:
        raise _unknown(name, " after ".join(reversed(names)))
    sharding = document["codecs"][0]["configuration"]
    inner = tuple(int(n) for n in sharding["chunk_shape"])
    counts = tuple(n // m for n, m in zip(shape, inner, strict=True))
    table = (*counts, 2)
    index = _chunk_codec(sharding["index_codecs"], table, np.dtype("u8"), name)
    shards = Shards(
        counts,
        index,
        index_bytes=8 * prod(table) + 4 * len(index.stages),
        at_end=sharding.get("index_location", "end") == "end",
    )
    return _chunk_codec(sharding["codecs"], inner, array.dtype, name), shards


def _chunk_codec(
    codecs: Sequence[Any], shape: tuple[int, ...], dtype: np.dtype[Any], name: str
) -> ChunkCodec:
    axes = tuple(range(len(shape)))
    stages: list[Stage] = []
    stored = None
    for codec in codecs:
        kind, options = _name(codec), _options(codec)
        if stored is None and kind == "transpose":
            axes = tuple(axes[i] for i in options["order"])
        elif stored is None and kind == "bytes":
            stored = dtype.newbyteorder(">" if options.get("endian") == "big" else "<")
        elif stored is not None and (stage := _stage(kind, options)) is not None:
            stages.insert(0, _checked(stage))
        else:
            raise _unknown(name, kind)
    if stored is None:
        raise _unknown(name, "no bytes codec")
    return ChunkCodec(shape, stored, axes, tuple(stages))


def _stage(kind: str, options: Mapping[str, Any]) -> Stage | None:
    """Return the codec of format 3 called ``kind``; None for one that is not known."""
    stage: Stage
    if kind == "crc32c":
        return _Crc32c()
    if kind in ("zstd", "blosc", "gzip"):
        stage = numcodecs.get_codec({"id": kind})  # decoding needs none of the options
        return stage
    prefix, _, kind = kind.partition("numcodecs.")
    if prefix or kind not in _BYTES_TO_BYTES:
        return None
    stage = numcodecs.get_codec({"id": kind, **options})
    return stage


class _Crc32c:
    """Zarr's checksum: four bytes after the others."""

    def decode(self, buf: bytes) -> bytes:
        content, stored = buf[:-4], buf[-4:]
        if struct.pack("<I", google_crc32c.value(content)) != stored:
            raise ValueError("its checksum does not fit")
        return content


@dataclass(frozen=True, slots=True)
class _Blosc:
    """Blosc, which trusts the length in its header and would read past the end of a cut chunk."""

    codec: Stage

    def decode(self, buf: bytes) -> Any:
        if len(buf) < 16 or struct.unpack_from("<I", buf, 12)[0] != len(buf):
            raise ValueError(f"its length, {len(buf)} bytes, is not what its header says")
        return self.codec.decode(buf)


def _checked(stage: Stage) -> Stage:
    return _Blosc(stage) if isinstance(stage, numcodecs.Blosc) else stage


def _name(codec: Any) -> str:
    return codec if isinstance(codec, str) else str(codec["name"])


def _options(codec: Any) -> Mapping[str, Any]:
    return {} if isinstance(codec, str) else codec.get("configuration") or {}


def _unknown(name: str, kind: str) -> SourceError:
    return SourceError(
        f"{name} is stored with a codec that cannot be read ({kind}). "
        "Write it again with zstd, blosc or gzip, sharded or not."
    )
