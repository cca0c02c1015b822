"""The command: check, plan, fit, then one streaming pass that writes."""

import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import numpy as np

from geodino.infer.chips import ContentHash, all_chips
from geodino.infer.encode import Encoded, encoded, stitched
from geodino.infer.preview import Preview
from geodino.infer.quantise import Loss
from geodino.io.feature_table import FeatureTable
from geodino.io.raster import HandlePool
from geodino.io.zarr.write import ZarrWriter
from geodino.runs.device import choose_device
from geodino.runs.embed.about import store_attributes, tags, write_items
from geodino.runs.embed.job import EmbedJob, Work
from geodino.runs.embed.model import open_model
from geodino.runs.embed.plan import Plan, plan
from geodino.runs.embed.sample import CHIPS, Sample, fit_quantiser
from geodino.runs.embed.writers import TABLE_COLUMNS, MapsWriter, Storage, Tags, write_table
from geodino.runs.progress import JobProgress
from geodino.runs.record import RunLog
from geodino.runs.sources import open_sources


def embed(job: EmbedJob) -> dict[str, Any]:
    """Write the features of rasters, a STAC item, and with ``pca`` a picture.

    Returns:
        What was written, from how many chips, and what quantisation cost.

    Raises:
        RecipeError: options that do not go together.
        CheckpointError: there is no model, or it is damaged.
        SourceError: a raster cannot be read.
        ContractError: a raster is not what the model was trained on.
        RunError: the output exists or cannot be written.
    """
    job.check()
    device = choose_device(job.device)
    log = RunLog(None, quiet=job.quiet)
    model = open_model(job.model)
    chip = model.chip_side(job.how.chip)
    start = time.monotonic()
    with HandlePool() as pool:
        found = open_sources(
            job.rasters,
            model.contract,
            job.how,
            pool=pool,
            overrides=job.overrides,
            time=job.datetime,
            strict=job.strict,
        )
        encoder = model.encoder(device, chip=chip, how=job.how)
        planned = plan(job, found.sources, patch=encoder.patch)
        work = Work(
            job=job, model=model, sources=planned.sources, chip=chip, encoder=encoder, log=log
        )
        card = _card(work, planned)
        notes = [*found.notes, *(f"unusable: {reason}" for _, reason in found.bad)]
        _show(card, notes, log)
        if job.dry_run:
            return {**card, "notes": notes}
        if not job.overwrite:
            planned.refuse_existing()
        written = _write_table(work) if job.format == ".parquet" else _write_maps(work, planned)
        items = write_items(work, planned, written.pop("quantiser"))
    return {
        "out": str(job.out),
        "item": str(items[0]) if len(items) == 1 else f"{len(items)} beside the files",
        **written,
        "rasters": len(work.sources),
        "unusable": len(found.bad),
        "seconds": round(time.monotonic() - start, 1),
    }


def _card(work: Work, planned: Plan) -> dict[str, str]:
    """Say what will be made and what it needs."""
    job, dim, patch = work.job, work.encoder.dim, work.encoder.patch
    widest = max(source.raster.grid.width for source in work.sources)
    contract = work.model.contract
    stored = widest * work.chip * len(contract.bands) * np.dtype(contract.dtype).itemsize
    features = widest * work.chip // patch**2 * dim * 4
    vectors = sum(m.grid.width * m.grid.height for m in planned.maps) or work.chips
    maps = f"{len(planned.maps)} map{'s' if len(planned.maps) > 1 else ''}"
    size = vectors * dim * np.dtype(job.dtype).itemsize / 2**20
    return {
        "rasters": f"{len(work.sources)}, in {work.chips:,} chips of {work.chip} px",
        "model": f"{work.model.name}: {dim} dimensions, a vector per {patch} px",
        "output": f"{maps if planned.maps else 'a row per chip'}, at most {size:,.1f} MiB of "
        f"{job.dtype} before compression"
        + (", and as much disk while it is written" if job.format == ".tif" else ""),
        "memory": f"about {(3 * stored + 4 * features) / 2**20:,.0f} MiB for a row of chips, "
        f"beside the model and its batches of {work.encoder.batch} chips",
    }


def _show(card: dict[str, str], notes: list[str], log: RunLog) -> None:
    width = max(map(len, card))
    for name, value in card.items():
        log.say(f"  {name:<{width}}  {value}")
    for note in notes:
        log.say(f"  * {note}")


def _write_maps(work: Work, planned: Plan) -> dict[str, Any]:
    job = work.job
    sample = Sample.draw(work) if job.pca or job.dtype == "int8" else None
    quantiser, loss, preview = None, None, None
    if sample is not None and job.dtype == "int8":
        quantiser, loss = fit_quantiser(
            sample.tokens, seed=job.seed, is_complete=sample.is_complete
        )
    if sample is not None and job.pca:
        preview = Preview.fit(sample.tokens)
    about = Tags(
        common=tags(work, loss), sources=work.sources, hashes=[ContentHash() for _ in work.sources]
    )
    chips = all_chips(
        [source.raster for source in work.sources],
        chip=work.chip,
        patch=work.encoder.patch,
        hashes=about.hashes,
    )
    storage = Storage(dtype=job.dtype, dim=work.encoder.dim, quantiser=quantiser)
    with JobProgress("chips", work.chips, quiet=job.quiet) as progress:
        results = _counted(encoded(chips, work.encoder), progress)
        strips = stitched(results, work.cuts, dim=work.encoder.dim)
        if job.format == ".zarr":
            with ZarrWriter(job.out, attributes=store_attributes(work)) as store:
                MapsWriter(planned, storage, preview=preview, store=store).write(strips, about)
                store.finish()
        else:
            MapsWriter(planned, storage, preview=preview, store=None).write(strips, about)
    facts: dict[str, Any] = {"quantiser": quantiser, "maps": len(planned.maps)}
    if preview is not None:
        facts["preview"] = [str(path) for path in planned.pictures]
        facts["explained"] = [round(float(share), 4) for share in preview.explained]
    return facts | _cost(loss)


def _write_table(work: Work) -> dict[str, Any]:
    job = work.job
    quantiser, loss = None, None
    if job.dtype == "int8":
        sample = Sample.draw(work)
        quantiser, loss = fit_quantiser(
            sample.vectors, seed=job.seed, is_complete=work.chips <= CHIPS
        )
    storage = Storage(dtype=job.dtype, dim=work.encoder.dim, quantiser=quantiser)
    hashes = [ContentHash() for _ in work.sources]
    rasters = [source.raster for source in work.sources]
    chips = all_chips(rasters, chip=work.chip, patch=work.encoder.patch, hashes=hashes)
    with (
        JobProgress("chips", work.chips, quiet=job.quiet) as progress,
        FeatureTable(
            job.out,
            dim=work.encoder.dim,
            dtype=job.dtype,
            columns=TABLE_COLUMNS,
            scales=storage.scales,
        ) as table,
    ):
        rows = write_table(
            table,
            _counted(encoded(chips, work.encoder), progress),
            work,
            storage=storage,
        )
        made = {s.path: h.hexdigest() for s, h in zip(work.sources, hashes, strict=True)}
        table.record = {**tags(work, loss), "GEODINO_POOL": job.pool, "sources_sha256": made}
    return {"quantiser": quantiser, "rows": rows, **_cost(loss)}


def _cost(loss: Loss | None) -> dict[str, Any]:
    return {} if loss is None else {"quantisation": asdict(loss)}


def _counted(results: Iterator[Encoded], progress: JobProgress) -> Iterator[Encoded]:
    for result in results:
        yield result
        progress.advance()
