"""What a product says about its making: tags, attributes of a store, STAC items."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from geodino import __version__
from geodino.geo.grid import Grid
from geodino.infer.quantise import Loss, Quantiser
from geodino.io.embedding_item import Product, write_item
from geodino.io.item import relative_href
from geodino.runs.embed.job import Work
from geodino.runs.embed.sample import CHIPS
from geodino.runs.mapping.about import Parts, job_tags, map_tags
from geodino.runs.mapping.maps import Map
from geodino.runs.sources import Source

_GEOEMB = {
    "name": "geoemb:",
    "uuid": "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
    "spec_url": "https://github.com/geo-embeddings/embeddings-zarr-convention/blob/v1/README.md",
}
"""The zarr convention for embeddings, by which readers know the attributes ``geoemb:*``."""


def tags_of_map(work: Work, made: Sequence[tuple[Map, Parts]], loss: Loss | None) -> dict[str, str]:
    """Return the tags of a map of one or several rasters."""
    model = work.model
    shared = map_tags(made, command=work.job.command(), model=model.name, sha256=model.sha256)
    return {**shared, **_own_tags(work, loss)}


def tags_of_table(work: Work, loss: Loss | None) -> dict[str, str]:
    """Return what a table says of its making."""
    shared = job_tags(
        command=work.job.command(),
        model=work.model.name,
        sha256=work.model.sha256,
        chip=work.chip,
        overlap=work.overlap,
        gsd_m=work.job.gsd_m,
    )
    return {**shared, **_own_tags(work, loss), "GEODINO_POOL": work.job.pool}


def _own_tags(work: Work, loss: Loss | None) -> dict[str, str]:
    found = {"GEODINO_PATCH_SIZE": str(work.patch)}
    if loss is not None:
        found["GEODINO_QUANTISATION"] = (
            "feature = stored * scale, one scale per dimension from the largest magnitude in at "
            f"most {CHIPS} chips drawn with seed {work.job.seed}; on {loss.features} features: "
            f"relative error {loss.relative_error:.4f}, recall@{loss.neighbours} "
            f"{loss.recall:.4f}, {100 * loss.clipped_share:.4f} % of the values clipped"
        )
    return found


def store_attributes(work: Work, maps: Sequence[Map]) -> dict[str, Any]:
    """Return attributes of a zarr store: CF, and the convention for embeddings."""
    attributes: dict[str, Any] = {
        "Conventions": "CF-1.10",
        "zarr_conventions": [_GEOEMB],
        "geoemb:type": "pixel",
        "geoemb:dimensions": work.dim,
        "geoemb:model": relative_href(work.model.item, work.job.out),
        "geoemb:source_data": [
            Path(origin.path).name for one in maps for origin in one.source.origins
        ],
        "geoemb:data_type": work.job.dtype,
        "geoemb:build_version": f"geodino {__version__}",
    }
    grids = [one.rendering.raster.grid for one in maps]
    sizes = [gsd for grid in grids if grid.gsd_m is not None for gsd in grid.gsd_m]
    if sizes:
        attributes["geoemb:gsd"] = round(max(sizes) * work.patch, 4)
    if work.job.dtype == "int8":
        attributes["geoemb:quantization"] = dict(_QUANTISATION)
    return attributes


_QUANTISATION: Mapping[str, str] = {
    "method": "linear",
    "original_dtype": "float32",
    "quantized_dtype": "int8",
}


def describe(
    work: Work,
    path: Path,
    *,
    preview: Path | None,
    sources: Sequence[Source],
    grids: Sequence[Grid],
    quantiser: Quantiser | None,
) -> Path:
    """Write the STAC item beside a product; return where.

    Args:
        work: what was asked, and the model.
        path: the product.
        preview: its picture.
        sources: the rasters it was made of.
        grids: of its maps, or of the rasters of a table.
        quantiser: scales of int8.
    """
    job = work.job
    scales: dict[str, Any] = {}
    if quantiser is not None:
        scales = {"scale": [float(step) for step in quantiser.scale], "offset": [0.0]}
    return write_item(
        Product(
            path=path,
            preview=preview,
            model_item=work.model.item,
            sources=tuple(source.path for source in sources),
            times=tuple(source.time for source in sources),
            grids=tuple(grids),
            kind="chip" if job.format == ".parquet" else "pixel",
            dimensions=work.dim,
            data_type=job.dtype,
            chip=work.chip,
            overlap=work.overlap,
            quantization=None if quantiser is None else {**_QUANTISATION, **scales},
            software=__version__,
            parameters={
                "command": job.command(),
                "model_sha256": work.model.sha256,
                "patch_size": work.patch,
                "bands": None if job.how.bands is None else list(job.how.bands),
                "scale": job.how.scale,
                "precision": job.how.precision,
                "accept": list(job.how.accept),
                "gsd_m": job.gsd_m,
                **({"pool": job.pool} if job.format == ".parquet" else {}),
            },
        )
    )
