"""The command: check, open rasters, plan, make what is left."""

import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import torch

from geodino.data.loader import default_threads
from geodino.io.raster import HandlePool
from geodino.runs.device import choose_device
from geodino.runs.mapping.maps import refuse_elsewhere
from geodino.runs.mapping.mosaic import as_mapped
from geodino.runs.mapping.show import rate, show_card, tell_seams
from geodino.runs.predict.answers import Answers
from geodino.runs.predict.base import MapTask, Task
from geodino.runs.predict.boxes import BoxTask
from geodino.runs.predict.images import ImageTask
from geodino.runs.predict.job import PredictJob
from geodino.runs.predict.maps import Maps
from geodino.runs.predict.table import Table
from geodino.runs.predict.task import open_task
from geodino.runs.record import RunLog
from geodino.runs.sources import Source, open_sources


def predict(job: PredictJob) -> dict[str, Any]:
    """Write a map of each raster, or a table: of the objects in all, or of what each image shows.

    Returns:
        What was written, how fast, and of maps how much the borders of chips show.

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
    task.check(job)
    begin = time.monotonic()
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
        made = _planned(job, task, sources, device=device)
        unusable = (f"unusable: {reason}" for _, reason in found.bad)
        notes = [*found.notes, *made.notes, *unusable]
        card = made.card()
        show_card(card, notes, log)
        if job.dry_run:
            return {**card, "notes": notes}
        written = made.write(threads)
    tell_seams(written, log)
    pixels = written.pop("pixels")
    facts = {"out": str(job.out), **written, "rasters": len(found.sources)}
    facts |= {"unusable": len(found.bad), "pixels": pixels}
    return rate(facts, seconds=time.monotonic() - begin)


def _planned(
    job: PredictJob, task: Task, sources: Sequence[Source], *, device: torch.device
) -> Maps | Table | Answers:
    if isinstance(task, BoxTask):
        return Table.plan(job, task, sources, device=device)
    if isinstance(task, ImageTask):
        return Answers.plan(job, task, sources, device=device)
    if isinstance(task, MapTask):
        return Maps.plan(job, task, sources, device=device)
    raise TypeError(f"{type(task).__name__} makes neither maps nor a table")
