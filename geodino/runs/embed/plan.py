"""Which maps a job makes, and what their files, groups and pictures are called."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from geodino import seeds
from geodino.errors import RecipeError, RunError
from geodino.geo.grid import Grid
from geodino.infer.chips import patch_grid
from geodino.infer.maps import Map, joined_maps, one_map_each
from geodino.io.item import item_path
from geodino.runs.embed.job import EmbedJob
from geodino.runs.sources import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What is written; per-map values follow ``maps``."""

    sources: tuple[Source, ...]
    """In the order in which they are written."""

    maps: tuple[Map, ...]
    """Their rasters are numbers of ``sources``; none for a table."""

    files: tuple[Path, ...]
    """One per map; the one table or store of all."""

    groups: tuple[str, ...]
    """Groups of a zarr store; the root is ``""``."""

    pictures: tuple[Path, ...]
    """One per map; none without ``--pca``."""

    def refuse_existing(self) -> None:
        """Refuse to replace files.

        Raises:
            RunError: naming the first one that is there.
        """
        items = [item_path(path) for path in self.files]
        there = [path for path in (*self.files, *self.pictures, *items) if path.exists()]
        if there:
            raise RunError(
                f"{there[0]} exists: nothing was changed. Choose another --out, or add --overwrite."
            )


def plan(job: EmbedJob, sources: Sequence[Source], *, patch: int) -> Plan:
    """Plan the files of a job.

    Raises:
        RecipeError: several rasters for one GeoTIFF.
    """
    if job.format == ".parquet":
        return Plan(sources=tuple(sources), maps=(), files=(job.out,), groups=(), pictures=())
    grids = [patch_grid(source.raster.grid, patch) for source in sources]
    if job.format == ".zarr":
        maps = joined_maps(grids)
        ordered = tuple(sources[i] for found in maps for i in found.rasters)
        maps = _renumbered(maps)
        groups = _groups(maps, ordered)
        pictures = [_picture(job.out, group) for group in groups]
        files = [job.out]
    else:
        if len(sources) > 1 and not job.is_folder:
            raise RecipeError(
                f"{job.out} holds one raster, but {len(sources)} were named. Write a GeoTIFF for "
                f"each to a folder (--out {job.out.with_suffix('')}), or all to a .zarr or .parquet."
            )
        maps, ordered, groups = one_map_each(grids), tuple(sources), []
        named = [job.out / f"{source.name}.tif" for source in sources]
        files = named if job.is_folder else [job.out]
        pictures = [_picture(path, "") for path in files]
    return Plan(
        sources=ordered,
        maps=tuple(maps),
        files=tuple(files),
        groups=tuple(groups),
        pictures=tuple(pictures) if job.pca else (),
    )


def _renumbered(maps: Sequence[Map]) -> list[Map]:
    """Number the rasters in the order in which their maps are written."""
    renumbered, count = [], 0
    for found in maps:
        numbers = range(count, count + len(found.rasters))
        renumbered.append(replace(found, rasters=tuple(numbers)))
        count = numbers.stop
    return renumbered


def _groups(maps: Sequence[Map], sources: Sequence[Source]) -> list[str]:
    """Name the groups of a store: the root for a single map, else by CRS, then by raster."""
    if len(maps) == 1:
        return [""]
    zones = [_zone(found.grid) for found in maps]
    return [
        zone if zones.count(zone) == 1 else f"{zone}/{sources[found.rasters[0]].name}"
        for zone, found in zip(zones, maps, strict=True)
    ]


def _zone(grid: Grid) -> str:
    """Return ``epsg_32618``; a CRS without a code is called by a hash of its WKT."""
    if grid.crs is None:
        return "no_crs"
    if len(grid.crs) < 32:
        return grid.crs.lower().replace(":", "_")
    return f"crs_{seeds.integer(grid.crs):016x}"


def _picture(path: Path, group: str) -> Path:
    """Return ``FILE.pca.tif``, with the group between where a store has several."""
    name = group.replace("/", ".")
    return path.with_suffix(f".{name}.pca.tif" if name else ".pca.tif")
