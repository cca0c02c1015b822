"""The command: check, open both dates, render what is left, join it, and tell the distribution."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from geodino.data.loader import default_threads
from geodino.infer.change import CHANGE, ChangePredictor
from geodino.infer.cover import chip_group
from geodino.io.raster import HandlePool
from geodino.runs.change.about import MEASURE, NOTE, Making, beside, distribution, finish, tags
from geodino.runs.change.job import ChangeJob
from geodino.runs.change.pair import open_pair
from geodino.runs.device import choose_device
from geodino.runs.embed.model import open_model
from geodino.runs.mapping.join import join
from geodino.runs.mapping.maps import Map, plan_map, refuse_elsewhere, shared_key
from geodino.runs.mapping.parts import Room, check_parts, is_done, render
from geodino.runs.mapping.show import rate, show_card
from geodino.runs.record import RunLog


def change(job: ChangeJob) -> dict[str, Any]:
    """Write how much each patch changed between two dates, with style, picture and STAC item.

    Returns:
        What was written, how fast, and the distribution of change over valid patches.

    Raises:
        RecipeError: options that do not go together.
        CheckpointError: there is no model, or it is damaged.
        SourceError: a raster or the area cannot be read, the two do not lie on one grid, or no
            pixel is valid on both dates; what was done stays for ``resume``.
        ContractError: a raster is not what the model was trained on.
        RunError: the output exists or cannot be written, or memory does not suffice.
    """
    job.check()
    log = RunLog(None, quiet=job.quiet)
    model = open_model(job.model)
    begin = time.monotonic()
    workers = default_threads()
    with HandlePool() as pool, ThreadPoolExecutor(workers, "geodino-read") as threads:
        pair = open_pair(job, model.contract, pool=pool)
        refuse_elsewhere(job, [pair.source])
        of = Making(job=job, pair=pair, model=model)
        one = _plan(of)
        card = _card(of, one)
        show_card(card, pair.notes, log)
        if job.dry_run:
            return {**card, "notes": list(pair.notes)}
        left = [] if is_done(one, job) else [one]
        check_parts(left, job)
        done = 0 if job.assemble else render(left, job, threads, room=Room(job))
        facts: dict[str, Any] = {"out": str(job.out)}
        if job.shard is None:
            facts |= join(
                left,
                job,
                tags=lambda one, committed: tags(one, of, committed),
                finish=lambda one: finish(one, of),
                whole=1 - len(left),
            )
            facts |= {**distribution(one.path), "note": NOTE}
    return rate({**facts, "pixels": done}, seconds=time.monotonic() - begin)


def _plan(of: Making) -> Map:
    """Plan the map."""
    job, model = of.job, of.model
    device = choose_device(job.device)
    chip = model.chip_side(job.how.chip)
    key = shared_key(
        job,
        model=model.sha256,
        chip=chip,
        overlap=model.overlap(job.overlap, chip=chip),
        group=chip_group(job.how.batch, chip=chip, device=device),
        gsd_m=job.gsd_m,
        device=device,
    )
    return plan_map(
        job,
        of.pair.source,
        ChangePredictor(model.predictor(device, job.how)),
        job.product,
        files={CHANGE: job.out},
        beside=beside(job.out),
        key={**key, "dtype": job.dtype},
    )


def _card(of: Making, one: Map) -> dict[str, str]:
    """Say what will be made."""
    cover, patches = one.rendering.cover, one.layout.grid
    gsd_m = one.key["gsd_m"]
    seen = "" if gsd_m is None else f", seen at {gsd_m:g} m"
    return {
        "before": of.pair.before.path,
        "after": of.pair.after.path,
        "model": f"{of.model.name}: {MEASURE}",
        "chips": f"{one.key['chip']} px with {one.key['overlap']} px in common, "
        f"{cover.group} at a time{seen}",
        "output": f"{of.job.dtype}, change and valid, {patches.width} x {patches.height} patches of "
        f"{one.stride} px",
    }
