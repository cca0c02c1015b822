"""The tiles of a source: what was decided about them, and reading their pixels."""

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Shaped

from geodino.data.members import Member
from geodino.data.parallel import in_order
from geodino.data.recoding import Recoding
from geodino.errors import SourceError
from geodino.geo.bands import Band
from geodino.geo.grid import Grid
from geodino.geo.quality import Encoding, usable
from geodino.geo.regrid import Resampling, axes, resample, source_window
from geodino.geo.validity import Combine, ReadRule, combine
from geodino.geo.windows import Window
from geodino.io.content import SHARD, content_sample, file_of, is_virtual
from geodino.io.image_key import DRIVER, find_image
from geodino.io.raster import HandlePool, RasterInfo, read
from geodino.io.remote import is_far

_AS_STORED = ReadRule(alpha="band", nodata="ignore")

_SHOWN = 3
"""Bad files named in a message."""


@dataclass(frozen=True, slots=True)
class Part:
    """A raster of a tile and the bands that are read from it."""

    info: RasterInfo
    """What its metadata says."""

    bands: tuple[int, ...]
    """Numbers of the bands to read, the first is 1."""


@dataclass(frozen=True, slots=True)
class Quality:
    """The quality layer of a tile and what it masks."""

    part: Part
    """The raster and the bands that are read."""

    encoding: Encoding
    """How classes are stored."""

    numbers: tuple[int, ...]
    """Values, bits or bands of the classes that make a pixel invalid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tile:
    """One image of a source, in one file or several, with the bands that are read from it."""

    path: str
    """The file; for several files the part of their paths that they share."""

    grid: Grid
    """CRS, transform and size."""

    parts: tuple[Part, ...]
    """Rasters, whose bands one after the other are those of ``TileIndex.bands``."""

    gsd_m: tuple[float, float] | None
    """Ground sampling distance along columns and rows, metres; None without a place on Earth."""

    resampling: Resampling | None = None
    """How parts on other grids come to ``grid``; None where all are on it."""

    quality: Quality | None = None
    """The quality layer, if one is used."""

    recoding: Recoding | None = None
    """How stored values become those of the source; None where they are already."""

    datetime: str | None = None
    """ISO 8601 time of acquisition, as far as known."""

    datetime_from: str | None = None
    """Where the time came from; a ``tiff tag`` is often the time of writing."""

    valid_share: float | None = None
    """Share of valid pixels; None where the statistics did not read this tile."""

    source: str = ""
    """Name of the source in a mix that it belongs to; empty where there is one source."""

    weight: float = 1.0
    """How often its ground is sampled: 1 where no other tile covers it, 1/n where n tiles do."""

    @property
    def height(self) -> int:
        """Rows."""
        return self.grid.height

    @property
    def width(self) -> int:
        """Columns."""
        return self.grid.width

    @property
    def dtype(self) -> str:
        """Stored type."""
        return self.parts[0].info.dtype

    @property
    def base(self) -> RasterInfo:
        """The first raster on the tile's own grid; its blocks are the ones that reading respects."""
        own = (part.info for part in self.parts if part.info.grid == self.grid)
        return next(own, self.parts[0].info)

    @property
    def block(self) -> tuple[int, int]:
        """Rows and columns of a stored block."""
        return self.base.block

    @property
    def is_image(self) -> bool:
        """Whether it is a photograph, which is seen whole, and not a part of a map."""
        return self.base.driver == DRIVER

    @property
    def is_far(self) -> bool:
        """Whether any of its files lies behind a network."""
        return any(is_far(path) for path in self.files)

    @property
    def files(self) -> tuple[str, ...]:
        """Everything that is opened to read it."""
        layer = () if self.quality is None else (self.quality.part.info.path,)
        return tuple(dict.fromkeys([*(part.info.path for part in self.parts), *layer]))


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
    """Type of the pixels that are read: the stored type of all tiles, or ``float32`` where some
    are recoded to physical values."""

    rule: ReadRule
    """How files are read; its reasons are sentences for the run card. In a mix each member has a
    rule of its own."""

    notes: tuple[str, ...] = ()
    """Further decisions, as sentences for the run card."""

    bad: tuple[tuple[str, str], ...] = ()
    """Files that cannot be used: (path, reason)."""

    declared: dict[str, Any] = field(default_factory=dict)
    """What ``data`` declared about the files when they were indexed, as JSON values."""

    members: tuple[Member, ...] = ()
    """The sources of a mix, whose tiles follow each other in this order; none for one source."""

    homogeneous: float = 0.0
    """Share of the steps whose whole batch comes from one member."""

    @property
    def rule_text(self) -> str:
        """How files are read, in one line."""
        rules = [member.rule.text for member in self.members] or [self.rule.text]
        return "; or ".join(dict.fromkeys(rules))

    def rule_of(self, tile: Tile) -> ReadRule:
        """Return how the files of a tile are read."""
        return next((m.rule for m in self.members if m.name == tile.source), self.rule)

    def part(self, name: str) -> "TileIndex":
        """Return the index of one member alone, without what was noted about all of them."""
        member = next(m for m in self.members if m.name == name)
        return replace(
            self,
            root=member.root,
            tiles=tuple(tile for tile in self.tiles if tile.source == name),
            rule=member.rule,
            notes=(),
            bad=(),
            members=(),
            homogeneous=0.0,
        )

    @property
    def pixels(self) -> int:
        """Pixels of all tiles."""
        return sum(tile.height * tile.width for tile in self.tiles)

    @property
    def is_far(self) -> bool:
        """Whether any tile lies behind a network."""
        return any(tile.is_far for tile in self.tiles)

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

        Hashed are, in sorted order, each file's path relative to ``root``, its size in bytes, and
        the SHA-256 of its first, middle and last 64 KiB (of all of it where it is no longer than
        192 KiB; see :func:`geodino.io.content.content_sample`); for a picture in a shard those of
        the shard. The same tiles in another folder have the same fingerprint. Of a file on a server
        the address and what the server tells are hashed; of a mix the fingerprint, name and share
        of each member.

        Raises:
            SourceError: a file vanished.
        """
        digest = hashlib.sha256()
        for member in self.members:
            inner = self.part(member.name).fingerprint(threads=threads)
            share = f"{member.name}\0{member.weight!r}\0{member.homogeneous}\0{inner}\n"
            digest.update(share.encode())
        if self.members:
            digest.update(repr(self.homogeneous).encode())
            return digest.hexdigest()
        paths = sorted({path for tile in self.tiles for path in tile.files})
        holders = [file_of(path) for path in paths]
        once = list(dict.fromkeys(holders))
        samples = dict(zip(once, in_order(content_sample, once, threads=threads), strict=True))
        for path, holder in zip(paths, holders, strict=True):
            size, content = samples[holder]
            image = find_image(path)
            local = path.removeprefix(SHARD) if image is None else image.shown
            name = local if is_virtual(local) else os.path.relpath(local, self.root)
            digest.update(f"{name.replace(os.sep, '/')}\0{size}\0{content}\n".encode())
        return digest.hexdigest()


class TileReader:
    """Reads windows of the tiles of an index: stored pixels and their validity.

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
        """Read a window of tile number ``tile``: pixels, and where they may be used.

        Raises:
            SourceError: a file vanished or is damaged.
        """
        of = self._index.tiles[tile]
        pixels, valid = read_tile(self._pool, of, window, self._index.rule_of(of))
        joined = combine(valid, self._valid)
        if self._valid == "any" and valid.strides[0] != 0:
            pixels = np.where(valid, pixels, self._fill[:, None, None])
        return pixels, joined


def read_tile(
    pool: HandlePool, tile: Tile, window: Window, rule: ReadRule
) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "c h w"]]:
    """Read a window of a tile on its grid: all bands, and where each may be used.

    The masks may be a read-only view shared by the bands.

    Raises:
        SourceError: a file vanished or is damaged.
    """
    read_parts = [_read_part(pool, part, tile, window, rule) for part in tile.parts]
    if len(read_parts) == 1:
        pixels, valid = read_parts[0]
    else:
        pixels, valid = (np.concatenate(arrays) for arrays in zip(*read_parts, strict=True))
    if tile.quality is not None:
        keep = _read_quality(pool, tile.quality, tile, window)
        is_shared = valid.strides[0] == 0
        valid = np.broadcast_to(valid[0] & keep, valid.shape) if is_shared else valid & keep
    return (pixels, valid) if tile.recoding is None else tile.recoding(pixels, valid)


def _read_part(
    pool: HandlePool,
    part: Part,
    tile: Tile,
    window: Window,
    rule: ReadRule,
    how: Resampling | None = None,
) -> tuple[Shaped[np.ndarray, "c h w"], Bool[np.ndarray, "c h w"]]:
    info = part.info
    if info.grid == tile.grid:
        return read(pool, info.path, window, bands=part.bands, rule=rule)
    how = how or tile.resampling
    placed = axes(info.grid, tile.grid)
    if how is None or placed is None:
        raise ValueError(f"{info.path} is not on the grid of {tile.path}")
    needed = source_window(*placed, window, how)
    pixels, valid = read(pool, info.path, needed, bands=part.bands, rule=rule)
    rows, columns = placed
    return resample(pixels, valid, read=needed, rows=rows, columns=columns, window=window, how=how)


def _read_quality(
    pool: HandlePool, quality: Quality, tile: Tile, window: Window
) -> Bool[np.ndarray, "h w"]:
    # Classes cannot be averaged; a pixel outside of the layer is one that nobody judged.
    layer, known = _read_part(pool, quality.part, tile, window, _AS_STORED, "nearest")
    return usable(layer, quality.encoding, quality.numbers) & known.all(axis=0)


def first_reasons(bad: Iterable[tuple[str, str]]) -> str:
    """Return the reasons of the first few bad files, and how many more there are."""
    reasons = [reason for _, reason in bad]
    more = f" (and {len(reasons) - _SHOWN} more)" if len(reasons) > _SHOWN else ""
    return " ".join(reasons[:_SHOWN]) + more
