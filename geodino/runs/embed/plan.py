"""Which maps a job makes, and what their files, groups and pictures are called."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodino import seeds
from geodino.errors import RunError
from geodino.geo.grid import Grid
from geodino.infer.cover import chip_group
from geodino.infer.maps import Mosaic, joined_maps
from geodino.infer.tokens import FEATURES, PICTURE, TokenProduct
from geodino.io.cog.parts import parts_folder
from geodino.io.item import item_path
from geodino.runs.embed.job import EmbedJob, Work
from geodino.runs.mapping.maps import Map, plan_map, refuse_turned, shared_key
from geodino.runs.sources import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Array:
    """An array of a zarr store."""

    mosaic: Mosaic
    """Its grid, and the numbers of the maps that lie on it."""

    group: str
    """Where it lies in the store; the root is ``""``."""

    picture: Path | None


def plan(work: Work, sources: Sequence[Source]) -> list[Map]:
    """Plan the map of each raster.

    Raises:
        ContractError: a resolution is asked of a raster that has none.
        SourceError: the area cannot be read.
    """
    job = work.job
    key = shared_key(
        job,
        model=work.model.sha256,
        chip=work.chip,
        overlap=work.overlap,
        group=chip_group(job.how.batch, chip=work.chip, device=work.device),
        gsd_m=job.gsd_m,
        device=work.device,
    )
    predictor = work.model.predictor(work.device, job.how)
    product = TokenProduct(
        dim=work.dim,
        is_quantised=job.dtype == "int8",
        has_picture=bool(job.pca),
        is_half=job.dtype == "float16",
    )
    own: dict[str, Any] = {"dtype": job.dtype, "pca": job.pca, "seed": job.seed}
    if job.is_store:
        refuse_turned(job, sources)
        own["rasters"] = [source.name for source in sources]
    maps = []
    for source in sources:
        path = job.out / f"{source.name}.tif" if job.is_folder else job.out
        files = {FEATURES: path, PICTURE: picture_path(path)}
        maps.append(
            plan_map(
                job,
                source,
                predictor,
                product,
                files={layer.name: files[layer.name] for layer in product.layers},
                beside=[item_path(path)],
                key={**key, **own},
                parts_at=parts_folder(job.out) / source.name if job.is_store else None,
            )
        )
    return maps


def plan_arrays(job: EmbedJob, maps: Sequence[Map]) -> list[Array]:
    """Plan the arrays of a store: one for all maps that are parts of one grid."""
    mosaics = joined_maps([one.layout.grid for one in maps])
    groups = _groups(mosaics, maps)
    return [
        Array(mosaic=mosaic, group=group, picture=picture_path(job.out, group) if job.pca else None)
        for mosaic, group in zip(mosaics, groups, strict=True)
    ]


def refuse_existing(job: EmbedJob) -> None:
    """Refuse to replace a table, or what lies beside it.

    Raises:
        RunError: naming the first file that is there.
    """
    there = [path for path in (job.out, item_path(job.out)) if path.exists()]
    if there and not job.overwrite:
        raise RunError(
            f"{there[0]} exists: nothing was changed. Choose another --out, or add --overwrite."
        )


def picture_path(path: Path, group: str = "") -> Path:
    """Return ``FILE.pca.tif``, with the group between where a store has several."""
    name = group.replace("/", ".")
    return path.with_suffix(f".{name}.pca.tif" if name else ".pca.tif")


def _groups(mosaics: Sequence[Mosaic], maps: Sequence[Map]) -> list[str]:
    """Name the groups of a store: the root for a single array, else by CRS, then by raster."""
    if len(mosaics) == 1:
        return [""]
    zones = [_zone(found.grid) for found in mosaics]
    return [
        zone if zones.count(zone) == 1 else f"{zone}/{maps[found.rasters[0]].source.name}"
        for zone, found in zip(zones, mosaics, strict=True)
    ]


def _zone(grid: Grid) -> str:
    """Return ``epsg_32618``; a CRS without a code is called by a hash of its WKT."""
    if grid.crs is None:
        return "no_crs"
    if len(grid.crs) < 32:
        return grid.crs.lower().replace(":", "_")
    return f"crs_{seeds.integer(grid.crs):016x}"
