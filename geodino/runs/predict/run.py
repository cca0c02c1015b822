"""The command: check, plan, render what is left, and join it to a map."""

import shutil
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
import rasterio
import torch

from geodino.data.loader import default_threads
from geodino.errors import RunError, SourceError
from geodino.infer.engine import Predictor
from geodino.infer.seams import SeamSums
from geodino.io.cog.assemble import Assembled, assemble
from geodino.io.cog.parts import PartsWriter
from geodino.io.raster import HandlePool
from geodino.runs.device import choose_device
from geodino.runs.predict.about import committed_of, finish, tags
from geodino.runs.predict.job import PredictJob
from geodino.runs.predict.maps import JOB_TAG, Map, plan, share
from geodino.runs.predict.memory import columns_for, default_limit, need, used_memory
from geodino.runs.predict.task import Task
from geodino.runs.progress import JobProgress
from geodino.runs.record import RunLog
from geodino.runs.sources import open_sources


def predict(job: PredictJob) -> dict[str, Any]:
    """Write a map of each raster, with its style, picture and STAC item.

    Returns:
        What was written, how fast, and how much the borders of chips show.

    Raises:
        RecipeError: options that do not go together.
        CheckpointError: there is no model, or it has no head.
        SourceError: a raster cannot be read; what was done stays for ``resume``.
        ContractError: a raster is not what the model was trained on.
        RunError: the output exists or cannot be written, or memory does not suffice.
    """
    job.check()
    device = choose_device(job.device)
    log = RunLog(None, quiet=job.quiet)
    task = Task.open(job.model)
    begin = time.monotonic()
    predictor = task.predictor(device, job)
    workers = default_threads()
    with HandlePool() as pool, ThreadPoolExecutor(workers, "geodino-read") as threads:
        how = replace(job.how, gsd_m=task.gsd(job.gsd_m))
        found = open_sources(
            job.rasters,
            task.contract,
            how,
            pool=pool,
            overrides=job.overrides,
            time=job.datetime,
            strict=job.strict,
        )
        maps = plan(job, task, found.sources, predictor, device=device)
        notes = [*found.notes, *(f"unusable: {reason}" for _, reason in found.bad)]
        card = _card(job, task, maps)
        _show(card, notes, log)
        if job.dry_run:
            return {**card, "notes": notes}
        left = [one for one in maps if not _is_done(one, job)]
        _check_parts(left, job)
        done = 0
        if not job.assemble:
            done = _render(left, job, predictor, threads)
        written = {} if job.shard is not None else _join(left, job, task, threads)
    seconds = time.monotonic() - begin
    facts: dict[str, Any] = {"out": str(job.out), **written, "rasters": len(maps)}
    facts["unusable"] = len(found.bad)
    if done:
        facts["megapixels_per_second"] = round(done / 1e6 / seconds, 3)
    return {**facts, "seconds": round(seconds, 1)}


def _card(job: PredictJob, task: Task, maps: Sequence[Map]) -> dict[str, str]:
    """Say what will be made."""
    first = maps[0]
    cover, layout = first.rendering.cover, first.layout
    pixels = sum(one.pixels for one in maps)
    size = pixels * first.layer.pixel_bytes / 2**20
    seen = "" if first.rendering.regrid is None else f", seen at {first.key['gsd_m']:g} m"
    return {
        "rasters": f"{len(maps)}, {pixels / 1e6:,.1f} Mpx{seen}",
        "model": f"{task.name}: canopy height, metres; licence {task.canopy.license}",
        "chips": f"{first.key['chip']} px with {first.key['overlap']} px in common, "
        f"{cover.group} at a time",
        "output": f"{first.layer.dtype}, {', '.join(first.layer.descriptions)}; at most "
        f"{size:,.1f} MiB before compression, written in parts of {layout.side} px",
    }


def _show(card: Mapping[str, str], notes: Sequence[str], log: RunLog) -> None:
    width = max(map(len, card))
    for name, value in card.items():
        log.say(f"  {name:<{width}}  {value}")
    for note in notes:
        log.say(f"  * {note}")


def _is_done(one: Map, job: PredictJob) -> bool:
    """Whether a resumed job finds this map whole.

    Raises:
        RunError: a file is there that may not be replaced.
    """
    if job.overwrite or not one.path.exists():
        return False
    if job.resume or job.shard is not None or job.assemble:
        with rasterio.open(one.path) as there:
            if there.tags().get(JOB_TAG) == one.identity:
                return True
    raise RunError(
        f"{one.path} exists: nothing was changed. Choose another --out, or add --overwrite."
    )


def _check_parts(maps: Sequence[Map], job: PredictJob) -> None:
    """Refuse to mix what an earlier job left with this one unasked."""
    for one in maps:
        if job.overwrite:
            shutil.rmtree(one.parts, ignore_errors=True)
        elif one.parts.exists() and not (job.resume or job.assemble or job.shard is not None):
            raise RunError(
                f"{one.parts} holds parts of this map from before: nothing was changed. Go on with "
                "--resume, or start again with --overwrite."
            )


def _render(
    maps: Sequence[Map], job: PredictJob, predictor: Predictor, threads: ThreadPoolExecutor
) -> int:
    """Render what is not committed yet; return how many pixels that was."""
    shares = share(maps, job.shard or (1, 1))
    total = sum(one.layout.window(n).area for one, numbers in shares for n in numbers)
    limit = default_limit() if job.max_memory is None else job.max_memory
    before = 0
    with JobProgress("Mpx", total, quiet=job.quiet, unit=10**6) as progress:
        for one, numbers in shares:
            if not numbers:
                continue
            before = before or _warmed_up(one, predictor)
            with PartsWriter(
                one.parts,
                layout=one.layout,
                layers=one.rendering.product.layers,
                key=one.key,
                shard=job.shard or (1, 1),
                threads=default_threads(),
            ) as parts:
                _refuse_changed(one, parts, threads)
                left = [n for n in numbers if n not in parts.committed]
                progress.advance(_pixels(one, numbers) - _pixels(one, left))
                bands, itemsize = _stored(one)
                found = need(one.rendering, bands=bands, itemsize=itemsize)
                columns = columns_for(limit, one.rendering, found, before=before)
                replace(one.rendering, columns=columns).run(
                    parts,
                    left,
                    threads=threads,
                    advance=progress.advance,
                    facts={"source": one.content},
                )
    return total


def _pixels(one: Map, numbers: Sequence[int]) -> int:
    return sum(one.layout.window(n).area for n in numbers)


def _stored(one: Map) -> tuple[int, int]:
    """Return bands and bytes per value of what is read."""
    pixels, _ = one.source.raster.read(one.layout.window(one.numbers[0]).corner)
    return len(pixels), pixels.itemsize


def _warmed_up(one: Map, predictor: Predictor) -> int:
    """Compute one batch of nothing; return the bytes the process holds then."""
    cover = one.rendering.cover
    bands, _ = _stored(one)
    shape = cover.group, bands, cover.rows.side, cover.columns.side
    predictor(
        torch.zeros(shape, device=predictor.device),
        torch.ones((shape[0], *shape[2:]), dtype=torch.bool, device=predictor.device),
    )
    return used_memory()


def _refuse_changed(one: Map, parts: PartsWriter, threads: ThreadPoolExecutor) -> None:
    """Look again at pixels of supertiles that were made from files written anew since.

    Raises:
        RunError: a pixel differs.
    """
    for number, committed in sorted(parts.committed.items()):
        if committed.facts["source"] == one.content:
            continue
        if one.rendering.digest(number, threads=threads) != committed.digest:
            window = one.layout.window(number)
            raise RunError(
                f"{one.source.path} has changed since {one.parts} was begun: pixels in rows "
                f"{window.top} to {window.bottom - 1}, columns {window.left} to "
                f"{window.right - 1} differ. Restore the raster, or start again with --overwrite."
            )


def _join(
    maps: Sequence[Map], job: PredictJob, task: Task, threads: ThreadPoolExecutor
) -> dict[str, Any]:
    """Write the files; return what is to be told of them."""
    seams, written, empty = SeamSums(), 0, []
    for one in maps:
        if not one.numbers:
            empty.append(one.source.path)
            continue
        committed = committed_of(one)
        about = tags(one, job, task, committed)
        made = assemble(
            one.parts,
            one.path,
            one.layer,
            layout=one.layout,
            tags={**about, JOB_TAG: one.identity},
            area_or_point=one.source.area_or_point,
            key=one.key,
            allow=one.outside,
            threads=default_threads(),
        )
        if _is_empty(made):
            one.path.unlink()
            empty.append(one.source.path)
        else:
            seams = seams + sum(
                (SeamSums(**c.facts["seams"]) for c in committed.values()), SeamSums()
            )
            finish(one, job, task, about)
            written += 1
        shutil.rmtree(one.parts)
    if empty and not written:
        raise SourceError(
            f"{empty[0]} has no valid pixel{' in the area' if job.aoi else ''}: there is nothing to "
            "map. Check its nodata value (geodino inspect), or --set data.nodata=ignore."
        )
    facts: dict[str, Any] = {"maps": written}
    if empty:
        facts["empty"] = empty
    if seams.score is not None:
        facts["seam_score"] = round(seams.score, 3)
    return facts


def _is_empty(made: Assembled) -> bool:
    return made.moments is not None and not np.any(made.moments.count)
