"""The tiles of a source: what was decided about them, and reading their pixels."""

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Shaped

from geodino.data.config import DataConfig
from geodino.data.parallel import in_order
from geodino.errors import SourceError
from geodino.geo.bands import Band
from geodino.geo.grid import Grid
from geodino.geo.validity import Combine, ReadRule, combine
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool, RasterInfo, read

_SAMPLED = 1 << 16
"""Bytes hashed at the start, the middle and the end of a file for the fingerprint."""

_SHOWN = 3
"""Bad files named in a message."""

_FITTING = 0.9
"""Share of the tiles that an automatic chip must fit into."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One file of a source, with the bands that are read from it."""

    info: RasterInfo
    """What its metadata says."""

    bands: tuple[int, ...]
    """Numbers of the bands to read (the first is 1), in the order of ``TileIndex.bands``."""

    gsd_m: tuple[float, float] | None
    """Ground sampling distance along columns and rows, metres; None without a place on Earth."""

    valid_share: float | None = None
    """Share of valid pixels; None where the statistics did not read this tile."""

    @property
    def path(self) -> str:
        """The file."""
        return self.info.path

    @property
    def grid(self) -> Grid:
        """CRS, transform and size."""
        return self.info.grid

    @property
    def height(self) -> int:
        """Rows."""
        return self.info.grid.height

    @property
    def width(self) -> int:
        """Columns."""
        return self.info.grid.width

    @property
    def dtype(self) -> str:
        """Stored type."""
        return self.info.dtype

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of a stored block."""
        return self.info.block


@dataclass(frozen=True, kw_only=True, slots=True)
class TileIndex:
    """All usable files of a source and the decisions that hold for each of them."""

    root: str
    """The folder that paths are relative to in the fingerprint."""

    tiles: tuple[Tile, ...]
    """Usable files, in the order of their paths."""

    bands: tuple[Band, ...]
    """What is read from every tile."""

    dtype: str
    """Stored type of all tiles."""

    rule: ReadRule
    """How files are read; its reasons are sentences for the run card."""

    notes: tuple[str, ...] = ()
    """Further decisions, as sentences for the run card."""

    bad: tuple[tuple[str, str], ...] = ()
    """Files that cannot be used: (path, reason)."""

    @property
    def pixels(self) -> int:
        """Pixels of all tiles."""
        return sum(tile.height * tile.width for tile in self.tiles)

    @property
    def gsd_m(self) -> tuple[float, float] | None:
        """Smallest and largest ground sampling distance of the tiles, metres."""
        found = [gsd for tile in self.tiles if tile.gsd_m for gsd in tile.gsd_m]
        return (min(found), max(found)) if found else None

    @property
    def crs(self) -> tuple[str | None, ...]:
        """The CRSs that occur, sorted; None for tiles without one."""
        return tuple(sorted({tile.grid.crs for tile in self.tiles}, key=lambda c: c or ""))

    def without(self, bad: Mapping[str, str]) -> "TileIndex":
        """Move tiles (by path, with reasons) to ``bad``.

        Raises:
            SourceError: none is left.
        """
        left = tuple(tile for tile in self.tiles if tile.path not in bad)
        everything_bad = (*self.bad, *bad.items())
        if not left:
            raise SourceError(f"No tile can be used. {first_reasons(everything_bad)}")
        return replace(self, tiles=left, bad=everything_bad)

    def with_valid_shares(self, shares: Iterable[float | None]) -> "TileIndex":
        """Note the share of valid pixels of each tile."""
        pairs = zip(self.tiles, shares, strict=True)
        return replace(self, tiles=tuple(replace(t, valid_share=share) for t, share in pairs))

    def fingerprint(self, *, threads: int = 1) -> str:
        """Return a SHA-256 of the source: it changes when a file is added, renamed or rewritten.

        Hashed are, in sorted order, each tile's path relative to ``root``, its size in bytes, and
        the SHA-256 of its first, middle and last 64 KiB (of all of it, where it is no longer).
        The same tiles in another folder have the same fingerprint.

        Raises:
            SourceError: a tile vanished.
        """
        digest = hashlib.sha256()
        paths = sorted(Path(tile.path) for tile in self.tiles)
        for path, (size, content) in zip(
            paths, in_order(_sampled_hash, paths, threads=threads), strict=True
        ):
            name = os.path.relpath(path, self.root).replace(os.sep, "/")
            digest.update(f"{name}\0{size}\0{content}\n".encode())
        return digest.hexdigest()


class TileReader:
    """Reads windows of the tiles of an index: stored pixels and their joined validity.

    Values under invalid pixels are as stored and must not be used. Safe to call from threads.

    Args:
        index: the tiles.
        pool: where open files are kept.
        valid: whether a pixel needs all of its bands, or any, to be valid.
        fill: stored value per band (its mean) for the invalid bands of a pixel that is valid;
            needed where ``valid`` is ``any``.
    """

    def __init__(
        self,
        index: TileIndex,
        pool: HandlePool,
        *,
        valid: Combine = "all",
        fill: Iterable[float] | None = None,
    ) -> None:
        self._index = index
        self._pool = pool
        self._valid = valid
        dtype = np.dtype(index.dtype)
        if valid == "any":
            if fill is None:
                raise ValueError("valid='any' needs the value of invalid bands")
            values = np.asarray(list(fill), dtype=np.float64)
            self._fill = (np.rint(values) if dtype.kind in "iu" else values).astype(dtype)

    def __call__(
        self, tile: int, window: Window
    ) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "h w"]]:
        """Read a window of tile number ``tile``.

        Raises:
            SourceError: the file vanished or is damaged.
        """
        of = self._index.tiles[tile]
        pixels, valid = read(self._pool, of.path, window, bands=of.bands, rule=self._index.rule)
        joined = combine(valid, self._valid)
        if self._valid == "any" and valid.strides[0] != 0:
            pixels = np.where(valid, pixels, self._fill[:, None, None])
        return pixels, joined


def resolve_chip(config: DataConfig, index: TileIndex, wanted: int) -> int:
    """Return the side of the source window that samples are cut from, pixels.

    Args:
        config: a declared ``chip`` is taken as it is.
        index: the tiles.
        wanted: what the views ask for. ``auto`` lowers it to the side that nine tiles in ten
            have; smaller tiles are then left out (:func:`too_small`).

    Raises:
        SourceError: the chip is larger than every tile.
    """
    sides = sorted((min(t.height, t.width) for t in index.tiles), reverse=True)
    if config.chip == "auto":
        return min(wanted, sides[math.ceil(_FITTING * len(sides)) - 1])
    if config.chip > sides[0]:
        largest = max(index.tiles, key=lambda t: min(t.height, t.width))
        raise SourceError(
            f"A chip of {config.chip} px (data.chip) is larger than every tile: the largest, "
            f"{largest.path}, has {largest.height} x {largest.width} px. "
            f"Set data.chip to {sides[0]} or less, or to auto."
        )
    return config.chip


def too_small(index: TileIndex, chip: int) -> tuple[Tile, ...]:
    """Return the tiles that a chip does not fit into; samples cannot be cut from them."""
    return tuple(tile for tile in index.tiles if min(tile.height, tile.width) < chip)


def first_reasons(bad: Iterable[tuple[str, str]]) -> str:
    """Return the reasons of the first few bad files, and how many more there are."""
    reasons = [reason for _, reason in bad]
    more = f" (and {len(reasons) - _SHOWN} more)" if len(reasons) > _SHOWN else ""
    return " ".join(reasons[:_SHOWN]) + more


def _sampled_hash(path: Path) -> tuple[int, str]:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as handle:
            size = handle.seek(0, os.SEEK_END)
            if size <= 3 * _SAMPLED:
                starts, length = [0], size
            else:
                starts, length = [0, (size - _SAMPLED) // 2, size - _SAMPLED], _SAMPLED
            for start in starts:
                handle.seek(start)
                digest.update(handle.read(length))
    except OSError as error:
        raise SourceError(
            f"{path} cannot be read any more ({error.strerror}). Restore it, or build the index "
            "again."
        ) from error
    return size, digest.hexdigest()
