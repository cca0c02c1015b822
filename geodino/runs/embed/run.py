"""The command: check, plan, fit, then one streaming pass that writes."""

import shutil
import time
from collections.abc import Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from geodino.data.loader import default_threads
from geodino.infer.tokens import PICTURE, TokenProduct
from geodino.io.cog.parts import parts_folder
from geodino.io.item import item_path
from geodino.io.raster import HandlePool
from geodino.runs.device import choose_device
from geodino.runs.embed.about import describe, tags_of_map
from geodino.runs.embed.fit import Fit, kept_fits
from geodino.runs.embed.job import EmbedJob, Work
from geodino.runs.embed.model import open_model
from geodino.runs.embed.plan import plan, plan_arrays, refuse_existing
from geodino.runs.embed.store import write_store
from geodino.runs.embed.table import cuts_of, rasters_of, write_table
from geodino.runs.mapping.join import join
from geodino.runs.mapping.maps import Map, refuse_elsewhere, with_product
from geodino.runs.mapping.mosaic import as_mapped, counted
from geodino.runs.mapping.parts import Room, check_parts, is_done, render
from geodino.runs.mapping.show import rate, show_card, tell_seams
from geodino.runs.record import RunLog
from geodino.runs.sources import Source, open_sources


def embed(job: EmbedJob) -> dict[str, Any]:
    """Write the features of rasters, a STAC item, and with ``pca`` a picture.

    Returns:
        What was written, how fast, and what quantisation cost.

    Raises:
        RecipeError: options that do not go together.
        CheckpointError: there is no model, or it is damaged.
        SourceError: a raster or the area cannot be read; of maps what was done stays for ``resume``.
        ContractError: a raster is not what the model was trained on.
        RunError: the output exists or cannot be written, or memory does not suffice.
    """
    job.check()
    device = choose_device(job.device)
    log = RunLog(None, quiet=job.quiet)
    model = open_model(job.model)
    chip = model.chip_side(job.how.chip)
    overlap = 0 if job.format == ".parquet" else model.overlap(job.overlap, chip=chip)
    work = Work(job=job, model=model, device=device, chip=chip, overlap=overlap)
    begin = time.monotonic()
    workers = default_threads()
    with HandlePool() as pool, ThreadPoolExecutor(workers, "geodino-read") as threads:
        found = open_sources(
            job.rasters,
            model.contract,
            replace(job.how, gsd_m=job.gsd_m),
            pool=pool,
            overrides=job.overrides,
            time=job.datetime,
            strict=job.strict,
        )
        sources = as_mapped(job, found)
        refuse_elsewhere(job, sources)
        maps = [] if job.format == ".parquet" else plan(work, sources)
        notes = [*found.notes, *(f"unusable: {reason}" for _, reason in found.bad)]
        card = _card(work, sources, maps)
        show_card(card, notes, log)
        if job.dry_run:
            return {**card, "notes": notes}
        if job.format == ".parquet":
            refuse_existing(job)
            written = write_table(work, sources)
        elif job.format == ".zarr":
            written = _write_store(work, maps, threads)
        else:
            written = _write_maps(work, maps, threads)
        tell_seams(written, log)
    facts = {
        "out": str(job.out),
        **written,
        "rasters": len(found.sources),
        "unusable": len(found.bad),
    }
    return rate(facts, seconds=time.monotonic() - begin)


def _write_maps(work: Work, maps: Sequence[Map], threads: Executor) -> dict[str, Any]:
    """Write a GeoTIFF for each raster, or a share of its parts."""
    job = work.job
    left = [one for one in maps if not is_done(one, job)]
    check_parts(left, job)
    room = Room(job)
    if not job.assemble:
        room.warm_up(left)
    fits = kept_fits(maps, left, job)
    left = [_fitted(one, fits[one.path]) for one in left]
    pixels = 0 if job.assemble else render(left, job, threads, room=room)
    if job.shard is not None:
        return {"pixels": pixels}

    def finish(one: Map) -> None:
        describe(
            work,
            one.path,
            preview=one.files.get(PICTURE),
            sources=one.source.origins,
            grids=[one.layout.grid],
            quantiser=fits[one.path].quantiser,
        )

    written = join(
        left,
        job,
        tags=lambda one, parts: tags_of_map(work, [(one, parts)], fits[one.path].loss),
        finish=finish,
        whole=len(maps) - len(left),
    )
    facts = {**written, **_items([one for one in maps if one.path.exists()])}
    if job.pca:
        pictures = [one.files[PICTURE] for one in maps]
        facts["preview"] = [str(path) for path in pictures if path.exists()]
    told = next((fits[one.path].facts() for one in left if one.numbers), {})
    return {**facts, **told, "pixels": pixels}


def _write_store(work: Work, maps: Sequence[Map], threads: Executor) -> dict[str, Any]:
    """Write a zarr store, or a share of its parts."""
    job = work.job
    arrays = plan_arrays(job, maps)
    pictures = [array.picture for array in arrays if array.picture is not None]
    item = item_path(job.out)
    facts: dict[str, Any] = {"item": str(item)}
    if pictures:
        facts["preview"] = [str(path) for path in pictures]
    maps = [replace(one, beside=(item, *pictures)) for one in maps]
    if all([is_done(one, job) for one in maps]):  # noqa: C419  (each may refuse)
        return {**facts, "maps": 0, "pixels": 0}
    check_parts(maps, job)
    room = Room(job)
    if not job.assemble:
        room.warm_up(maps)
    fit = kept_fits(maps, maps, job)[job.out]
    ready = [_fitted(one, fit) for one in maps]
    pixels = 0 if job.assemble else render(ready, job, threads, room=room)
    if job.shard is not None:
        return {"pixels": pixels}
    write_store(work, ready, arrays, fit)
    describe(
        work,
        job.out,
        preview=pictures[0] if pictures else None,
        sources=[origin for one in maps for origin in one.source.origins],
        grids=[array.mosaic.grid for array in arrays],
        quantiser=fit.quantiser,
    )
    shutil.rmtree(parts_folder(job.out))
    return {**facts, "maps": len(arrays), **fit.facts(), "pixels": pixels}


def _fitted(one: Map, fit: Fit) -> Map:
    product = one.rendering.product
    if not isinstance(product, TokenProduct):
        raise TypeError(f"{one.path} is no map of features")
    if fit == Fit():
        return one
    return with_product(one, fit.product(product), fit=fit.digest)


def _items(maps: Sequence[Map]) -> dict[str, str]:
    items = [str(item_path(one.path)) for one in maps]
    return {"item": items[0] if len(items) == 1 else f"{len(items)} beside the files"}


def _card(work: Work, sources: Sequence[Source], maps: Sequence[Map]) -> dict[str, str]:
    """Say what will be made."""
    job, dim = work.job, work.dim
    if maps:
        covers = [one.rendering.cover for one in maps]
        chips = sum(cover.rows.count * cover.columns.count for cover in covers)
        vectors = sum(one.pixels() for one in maps) // work.patch**2
        what = f"{len(maps)} map{'s' if len(maps) > 1 else ''}"
    else:
        cuts = cuts_of(work, rasters_of(work, sources))
        chips = vectors = sum(cut.rows * cut.columns for cut in cuts)
        what = "a row per chip"
    size = vectors * dim * np.dtype(job.dtype).itemsize / 2**20
    shared = f" with {work.overlap} px in common" if work.overlap else ""
    seen = "" if job.gsd_m is None else f", seen at {job.gsd_m:g} m"
    return {
        "rasters": f"{counted(sources)}, in {chips:,} chips of {work.chip} px{shared}{seen}",
        "model": f"{work.model.name}: {dim} dimensions, a vector per {work.patch} px",
        "output": f"{what}, at most {size:,.1f} MiB of {job.dtype} before compression",
    }
