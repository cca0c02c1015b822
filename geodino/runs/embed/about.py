"""What a product says about its making: tags, attributes of a store, STAC items."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geodino import __version__
from geodino.geo.grid import Grid
from geodino.infer.quantise import Loss, Quantiser
from geodino.io.embedding_item import Product, write_item
from geodino.io.item import relative_href
from geodino.runs.embed.job import Work
from geodino.runs.embed.plan import Plan
from geodino.runs.embed.sample import CHIPS
from geodino.runs.sources import Source

_GEOEMB = {
    "name": "geoemb:",
    "uuid": "61c12cc5-0e28-4056-999a-480cf3fb7e4c",
    "spec_url": "https://github.com/geo-embeddings/embeddings-zarr-convention/blob/v1/README.md",
}
"""The zarr convention for embeddings, by which readers know the attributes ``geoemb:*``."""


def tags(work: Work, loss: Loss | None) -> dict[str, str]:
    """Return what all maps of a job share."""
    found = {
        "GEODINO_VERSION": __version__,
        "GEODINO_COMMAND": work.job.command(),
        "GEODINO_MODEL": work.model.name,
        "GEODINO_MODEL_SHA256": work.model.sha256,
        "GEODINO_CHIP_SIZE": str(work.chip),
        "GEODINO_PATCH_SIZE": str(work.encoder.patch),
        "GEODINO_OVERLAP": "0",
    }
    if loss is not None:
        found["GEODINO_QUANTISATION"] = (
            "feature = stored * scale, one scale per dimension from the largest magnitude in at "
            f"most {CHIPS} chips drawn with seed {work.job.seed}; on {loss.features} features: "
            f"relative error {loss.relative_error:.4f}, recall@{loss.neighbours} "
            f"{loss.recall:.4f}, {100 * loss.clipped_share:.4f} % of the values clipped"
        )
    return found


def store_attributes(work: Work) -> dict[str, Any]:
    """Return attributes of a zarr store: CF, and the convention for embeddings."""
    attributes: dict[str, Any] = {
        "Conventions": "CF-1.10",
        "zarr_conventions": [_GEOEMB],
        "geoemb:type": "pixel",
        "geoemb:dimensions": work.encoder.dim,
        "geoemb:model": relative_href(work.model.item, work.job.out),
        "geoemb:source_data": [Path(source.path).name for source in work.sources],
        "geoemb:data_type": work.job.dtype,
        "geoemb:build_version": f"geodino {__version__}",
    }
    grids = [source.raster.grid for source in work.sources]
    sizes = [gsd for grid in grids if grid.gsd_m is not None for gsd in grid.gsd_m]
    if sizes:
        attributes["geoemb:gsd"] = round(max(sizes) * work.encoder.patch, 4)
    if work.job.dtype == "int8":
        attributes["geoemb:quantization"] = {
            "method": "linear",
            "original_dtype": "float32",
            "quantized_dtype": "int8",
        }
    return attributes


def write_items(work: Work, planned: Plan, quantiser: Quantiser | None) -> list[Path]:
    """Write a STAC item beside each file; return where."""
    if work.job.format == ".tif":
        pictures = planned.pictures or (None,) * len(planned.files)
        return [
            write_item(
                _product(
                    work, path, picture, [work.sources[i] for i in m.rasters], [m.grid], quantiser
                )
            )
            for path, picture, m in zip(planned.files, pictures, planned.maps, strict=True)
        ]
    grids = [found.grid for found in planned.maps]
    grids = grids or [source.raster.grid for source in work.sources]
    picture = planned.pictures[0] if planned.pictures else None
    return [write_item(_product(work, work.job.out, picture, work.sources, grids, quantiser))]


def _product(
    work: Work,
    path: Path,
    preview: Path | None,
    sources: Sequence[Source],
    grids: Sequence[Grid],
    quantiser: Quantiser | None,
) -> Product:
    job = work.job
    quantization = None
    if quantiser is not None:
        quantization = {
            "method": "linear",
            "original_dtype": "float32",
            "quantized_dtype": "int8",
            "scale": [float(step) for step in quantiser.scale],
            "offset": [0.0],
        }
    return Product(
        path=path,
        preview=preview,
        model_item=work.model.item,
        sources=tuple(source.path for source in sources),
        times=tuple(source.time for source in sources),
        grids=tuple(grids),
        kind="chip" if job.format == ".parquet" else "pixel",
        dimensions=work.encoder.dim,
        data_type=job.dtype,
        chip=work.chip,
        quantization=quantization,
        software=__version__,
        parameters={
            "command": job.command(),
            "model_sha256": work.model.sha256,
            "patch_size": work.encoder.patch,
            "bands": None if job.how.bands is None else list(job.how.bands),
            "scale": job.how.scale,
            "accept": list(job.how.accept),
            **({"pool": job.pool} if job.format == ".parquet" else {}),
        },
    )
