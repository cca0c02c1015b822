"""A table: a row for each chip, chips lying side by side."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict
from typing import Any

from affine import Affine

from geodino.geo.grid import Grid
from geodino.infer.chips import Chip, Chipping, ContentHash, Raster, all_chips
from geodino.infer.encode import Encoded, encoded
from geodino.infer.quantise import Loss, Quantiser
from geodino.io.area import Area
from geodino.io.feature_table import FeatureTable
from geodino.runs.embed.about import describe, tags_of_table
from geodino.runs.embed.job import Work
from geodino.runs.embed.sample import fit_quantiser, table_sample
from geodino.runs.embed.storage import scales_of, stored
from geodino.runs.mapping.maps import seen_by
from geodino.runs.progress import JobProgress
from geodino.runs.sources import Source

COLUMNS = {
    "chip_id": "string",
    "datetime": "string",
    "gsd_m": "double",
    "source": "string",
    "model": "string",
    "crs": "string",
    "row": "int64",
    "col": "int64",
    "valid_share": "double",
}
"""Columns of the table beside vector, footprint and its bounds; ``row`` and ``col`` are the first
pixel of the chip."""


def rasters_of(work: Work, sources: Sequence[Source]) -> list[Raster]:
    """Return the rasters as the model sees them.

    Raises:
        ContractError: a resolution is asked of a raster that has none.
    """
    return [seen_by(source, work.job.gsd_m)[0] for source in sources]


def cuts_of(work: Work, rasters: Sequence[Raster]) -> list[Chipping]:
    """Return how each raster is cut."""
    return [Chipping(r.grid.height, r.grid.width, work.chip, work.patch) for r in rasters]


def write_table(work: Work, sources: Sequence[Source]) -> dict[str, Any]:
    """Write the table and its STAC item; return what is to be told of it.

    Raises:
        SourceError: a block cannot be read, or there is nothing to fit int8 on.
        RunError: the disk is full, or a value is not finite.
    """
    job = work.job
    rasters = rasters_of(work, sources)
    cuts = cuts_of(work, rasters)
    encoder = work.model.encoder(work.device, chip=work.chip, how=job.how)
    quantiser: Quantiser | None = None
    loss: Loss | None = None
    if job.dtype == "int8":
        sample = table_sample(rasters, encoder, chip=work.chip, pool=job.pool, seed=job.seed)
        quantiser, loss = fit_quantiser(
            sample.features, seed=job.seed, is_complete=sample.is_complete
        )
    hashes = [ContentHash() for _ in rasters]
    chips = all_chips(rasters, chip=work.chip, patch=work.patch, hashes=hashes)
    if job.aoi is not None:
        areas = [Area.on(job.aoi, raster.grid) for raster in rasters]
        chips = _inside(chips, areas, cuts)
    total = sum(cut.rows * cut.columns for cut in cuts)
    with (
        JobProgress("chips", total, quiet=job.quiet) as progress,
        FeatureTable(
            job.out, dim=work.dim, dtype=job.dtype, columns=COLUMNS, scales=scales_of(quantiser)
        ) as table,
    ):
        rows = 0
        for result in encoded(chips, encoder):
            progress.advance()
            cut, source = cuts[result.raster], sources[result.raster]
            vector = result.pooled(job.pool)
            if vector is not None:
                footprint, row = _row(result, cut, source, rasters[result.raster].grid)
                row["model"] = work.model.name
                table.append(stored(vector, quantiser, job.dtype), footprint, row)
                rows += 1
        made = {s.path: h.hexdigest() for s, h in zip(sources, hashes, strict=True)}
        table.record = {**tags_of_table(work, loss), "sources_sha256": made}
    grids = [raster.grid for raster in rasters]
    describe(work, job.out, preview=None, sources=sources, grids=grids, quantiser=quantiser)
    return {"rows": rows, **({} if loss is None else {"quantisation": asdict(loss)})}


def _inside(
    chips: Iterable[Chip], areas: Sequence[Area], cuts: Sequence[Chipping]
) -> Iterator[Chip]:
    """Yield the chips that touch the area."""
    for chip in chips:
        if areas[chip.raster].touches(cuts[chip.raster].window(chip.row, chip.column)):
            yield chip


def _row(result: Encoded, cut: Chipping, source: Source, grid: Grid) -> tuple[Any, dict[str, Any]]:
    """Return where a chip lies, and what else is said of it."""
    window = cut.window(result.row, result.column)
    part = Grid(
        grid.crs,
        grid.transform @ Affine.translation(window.left, window.top),
        width=window.width,
        height=window.height,
    )
    return part.footprint_wgs84(), {
        "chip_id": f"{source.name}_{result.row:05d}_{result.column:05d}",
        "datetime": source.time,
        "gsd_m": None if grid.gsd_m is None else max(grid.gsd_m),
        "source": source.path,
        "crs": grid.crs,
        "row": window.top,
        "col": window.left,
        "valid_share": result.share,
    }
