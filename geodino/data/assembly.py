"""From chosen bands to tiles: one grid a scene, its quality layer, what brings bands together."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import groupby

from geodino.data.config import DataConfig
from geodino.data.recoding import Channel, Recoding
from geodino.data.sources.descriptor import Descriptor
from geodino.data.sources.scenes import Scene
from geodino.data.tiles import Part, Quality, Tile
from geodino.errors import BandError, SourceError, suggest
from geodino.geo.grid import Grid
from geodino.geo.regrid import Resampling, axes
from geodino.io.raster import RasterInfo

_SAME = 1e-3
"""Grids whose corners are closer than this part of a pixel are one: tags are written in decimals."""


def assemble(
    scenes: Sequence[Scene],
    chosen: Sequence[tuple[Channel, ...]],
    recodings: Sequence[Recoding | None],
    infos: Mapping[str, RasterInfo],
    *,
    config: DataConfig,
    descriptor: Descriptor | None,
) -> tuple[list[Tile], list[tuple[str, str]]]:
    """Build the tiles of a source.

    Args:
        scenes: what becomes tiles.
        chosen: the bands of each, in the order of the source's bands.
        recodings: how each one's values become those of the source.
        infos: of all rasters, by path.
        config: ``grid``, ``resampling``, ``mask``.
        descriptor: what is declared instead where the config says nothing.

    Returns:
        Tiles, and (name, reason) of scenes whose files do not fit together.

    Raises:
        BandError: no scene fits together, or a class or band that is asked for does not exist.
    """
    maker = _Maker(config, descriptor)
    tiles, bad = [], []
    for scene, channels, recoding in zip(scenes, chosen, recodings, strict=True):
        try:
            tile = maker.tile(scene, channels, infos)
        except SourceError as error:
            bad.append((scene.name, str(error)))
        else:
            tiles.append(tile if recoding is None else replace(tile, recoding=recoding))
    if not tiles:
        raise BandError(bad[0][1])
    return tiles, bad


class _Maker:
    def __init__(self, config: DataConfig, descriptor: Descriptor | None) -> None:
        self._config = config
        self._grid = config.grid or (descriptor.grid if descriptor else None)
        self._how = config.resampling or (descriptor.resampling if descriptor else None)

    def tile(
        self, scene: Scene, channels: Sequence[Channel], infos: Mapping[str, RasterInfo]
    ) -> Tile:
        grid, how = self._common_grid(scene, channels)
        parts = []
        for _, group in groupby(channels, key=lambda c: c.info.path):
            own = list(group)
            info = snapped(own[0].info, grid)
            if info.grid != grid and (how is None or axes(info.grid, grid) is None):
                raise SourceError(_misfit(scene.name, info, grid, channels, how))
            parts.append(Part(info, tuple(c.number for c in own)))
        base = channels[0].info
        return Tile(
            path=scene.name,
            grid=grid,
            parts=tuple(parts),
            gsd_m=grid.gsd_m,
            resampling=how if any(part.info.grid != grid for part in parts) else None,
            quality=self._quality(scene, grid, infos),
            datetime=scene.datetime or base.datetime,
            datetime_from=scene.datetime_from or base.datetime_from,
        )

    def _common_grid(
        self, scene: Scene, channels: Sequence[Channel]
    ) -> tuple[Grid, Resampling | None]:
        """Return the grid of the scene, and how other bands come to it."""
        grids = [channel.info.grid for channel in channels]
        first = grids[0]
        if all(g is first or _is_same(g, first) for g in grids):
            return first, None
        if self._grid is None:
            odd = next(c.info for c in channels if not _is_same(c.info.grid, first))
            raise SourceError(_misfit(scene.name, odd, first, channels, None))
        if self._grid in ("finest", "coarsest"):
            pick = min if self._grid == "finest" else max
            return pick(grids, key=_pixel_area), self._how
        for channel in channels:
            if self._grid in (channel.band.name, channel.band.common_name):
                return channel.info.grid, self._how
        # The band of the grid is not among those that were chosen: the finest one replaces it.
        names = [channel.band.name for channel in channels]
        if self._config.grid is not None:
            raise BandError(
                f"data.grid: {scene.name} has no band {self._grid!r}.{suggest(self._grid, names)} "
                f"It has: {', '.join(names)}; finest and coarsest go without a name."
            )
        return min(grids, key=_pixel_area), self._how

    def _quality(self, scene: Scene, grid: Grid, infos: Mapping[str, RasterInfo]) -> Quality | None:
        if scene.quality is None:
            if self._config.mask:
                raise BandError(
                    f"data.mask asks for {', '.join(self._config.mask)}, but {scene.name} has no "
                    "quality layer. Name it in a descriptor (data.dataset, `quality`)."
                )
            return None
        path, layer = scene.quality
        names = layer.mask if self._config.mask is None else self._config.mask
        if not names:
            return None
        numbers = layer.known.numbers(names, source=path)
        encoding = layer.known.encoding
        bands = numbers if encoding == "bands" else (layer.number,)
        info = snapped(infos[path], grid)
        if max(bands) > info.count:
            raise SourceError(
                f"{path} has {info.count} band(s); the quality layer needs band {max(bands)}. "
                "Mend the descriptor."
            )
        if info.grid != grid and axes(info.grid, grid) is None:
            raise SourceError(
                f"The quality layer {path} ({_words(info.grid)}) does not lie on the grid of "
                f"{scene.name} ({_words(grid)}): nothing is reprojected. Warp it, or remove it."
            )
        return Quality(Part(info, bands), encoding, numbers)


def _is_same(a: Grid, b: Grid) -> bool:
    if a == b:
        return True
    if (a.crs, a.width, a.height) != (b.crs, b.width, b.height):
        return False
    places = [(x, y) for x in (0, a.width) for y in (0, a.height)]
    moved = ~a.transform * b.transform
    gaps = [max(abs(u - x), abs(v - y)) for (x, y) in places for u, v in [moved * (x, y)]]
    return bool(max(gaps) < _SAME)


def _pixel_area(grid: Grid) -> float:
    return float(abs(grid.transform.determinant))


def snapped(info: RasterInfo, grid: Grid) -> RasterInfo:
    """Return the raster on exactly the grid, where it differs in the last decimals only."""
    if info.grid == grid or not _is_same(info.grid, grid):
        return info
    return replace(info, grid=grid)


def _misfit(
    name: str,
    info: RasterInfo,
    grid: Grid,
    channels: Sequence[Channel],
    how: Resampling | None,
) -> str:
    other = next((c.info for c in channels if c.info.grid == grid), channels[0].info)
    if info.grid.crs != grid.crs or how is not None:
        cure = "Nothing is reprojected: warp one of them to the grid of the other."
    else:
        cure = (
            "Declare the grid and the method: data.grid (a band, finest or coarsest) and "
            "data.resampling (nearest, bilinear, average), or choose bands of one grid with "
            "data.bands."
        )
    return (
        f"The bands of {name} lie on different grids: {other.path} has {_words(grid)}, "
        f"{info.path} has {_words(info.grid)}. {cure}"
    )


def _words(grid: Grid) -> str:
    t = grid.transform
    return (
        f"{grid.width} x {grid.height} px of {abs(t.a):g} x {abs(t.e):g} from "
        f"({t.c:.10g}, {t.f:.10g}) in {(grid.crs or 'no CRS')[:40]}"
    )
