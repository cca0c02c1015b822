"""The command: check, plan, render what is left, and join it to a map."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from geodino.data.loader import default_threads
from geodino.io.cog.layout import Layer
from geodino.io.raster import HandlePool
from geodino.runs.device import choose_device
from geodino.runs.mapping.about import Parts
from geodino.runs.mapping.join import join
from geodino.runs.mapping.maps import Map, refuse_elsewhere
from geodino.runs.mapping.mosaic import as_mapped, counted
from geodino.runs.mapping.parts import Room, check_parts, is_done, render
from geodino.runs.mapping.show import rate, show_card
from geodino.runs.predict.about import dissimilar_share, finish, tags
from geodino.runs.predict.base import Task
from geodino.runs.predict.job import PredictJob
from geodino.runs.predict.maps import plan
from geodino.runs.predict.store import join_store
from geodino.runs.predict.task import open_task
from geodino.runs.record import RunLog
from geodino.runs.sources import open_sources


def predict(job: PredictJob) -> dict[str, Any]:
    """Write a map of each raster, with its style, picture and STAC item.

    Returns:
        What was written, how fast, and how much the borders of chips show.

    Raises:
        RecipeError: options that do not go together.
        CheckpointError: there is no model, or it has no head.
        SourceError: a raster or the area cannot be read; what was done stays for ``resume``.
        ContractError: a raster is not what the model was trained on.
        RunError: the output exists or cannot be written, or memory does not suffice.
    """
    job.check()
    device = choose_device(job.device)
    log = RunLog(None, quiet=job.quiet)
    task = open_task(job.model)
    begin = time.monotonic()
    predictor = task.predictor(
        device,
        scale=job.how.scale,
        symmetries=job.symmetries,
        applicability=job.applicability,
    )
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
        sources = as_mapped(job, found)
        refuse_elsewhere(job, sources)
        maps = plan(job, task, sources, predictor, device=device)
        notes = [*found.notes, *(f"unusable: {reason}" for _, reason in found.bad)]
        card = _card(job, task, maps)
        show_card(card, notes, log)
        if job.dry_run:
            return {**card, "notes": notes}
        left = [one for one in maps if not is_done(one, job)]
        check_parts(left, job)
        done = 0 if job.assemble else render(left, job, threads, room=Room(job))
        written = _joined(left, job, task, whole=len(maps) - len(left))
    facts = {
        "out": str(job.out),
        **written,
        "rasters": len(found.sources),
        "unusable": len(found.bad),
    }
    return rate({**facts, "pixels": done}, seconds=time.monotonic() - begin)


def _joined(left: Sequence[Map], job: PredictJob, task: Task, *, whole: int) -> dict[str, Any]:
    """Write the files of maps whose parts are complete, unless this job is a shard."""
    if job.shard is not None:
        return {}
    if job.is_store:
        return join_store(left[0], job, task) if left else {"maps": 0}
    made: list[Parts] = []

    def described(one: Map, committed: Parts) -> dict[str, str]:
        made.append(committed)
        return tags(one, job, task, committed)

    facts = join(left, job, tags=described, finish=lambda one: finish(one, job, task), whole=whole)
    share = dissimilar_share(made)
    return facts if share is None else {**facts, "dissimilar_share": round(share, 4)}


def _card(job: PredictJob, task: Task, maps: Sequence[Map]) -> dict[str, str]:
    """Say what will be made."""
    first = maps[0]
    cover, layout = first.rendering.cover, first.layout
    pixels = sum(one.pixels() for one in maps)
    size = pixels * sum(layer.pixel_bytes for layer in first.layers) / 2**20
    part = min(layout.side, max(layout.grid.height, layout.grid.width))
    seen = "" if first.rendering.regrid is None else f", seen at {first.key['gsd_m']:g} m"
    return {
        "rasters": f"{counted([one.source for one in maps])}, {pixels / 1e6:,.1f} Mpx{seen}",
        "model": f"{task.name}: {task.what}; licence {task.license}",
        "chips": f"{first.key['chip']} px with {first.key['overlap']} px in common, "
        f"{cover.group} at a time",
        "output": f"{'; '.join(map(_bands, first.layers))}; at most "
        f"{size:,.1f} MiB before compression, written in parts of {part} px",
    }


def _bands(layer: Layer) -> str:
    return f"{layer.dtype}, {', '.join(layer.descriptions)}"
