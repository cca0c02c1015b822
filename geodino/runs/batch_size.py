"""The largest batch that fits a GPU: tried, not guessed."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from geodino.data.batch import Batch
from geodino.errors import RunError
from geodino.geo.contract import InputContract
from geodino.pretrain.phases import rates
from geodino.runs.processes import Processes
from geodino.runs.recipe import RunConfig

_WITHOUT_GPU = 64
_SHARE = 0.9
"""Share of the device's memory that may be used; the rest is for fragmentation and probes."""

_MOST = 1024


def largest_batch(
    config: RunConfig, contract: InputContract, processes: Processes
) -> tuple[int, str]:
    """Return the global batch to use and why.

    On a GPU whole steps are computed with made-up pixels, doubling the batch while it fits. Where
    the networks are spread over several, one GPU cannot try: their memory is planned.

    Raises:
        RunError: not even one group fits.
    """
    group, device, devices = config.train.group, processes.device, processes.world
    if device.type != "cuda":
        batch = max(_WITHOUT_GPU // (group * devices), 1) * group * devices
        return batch, "there is no GPU to fill"
    total = torch.cuda.get_device_properties(device).total_memory
    strategy, _ = processes.strategy(config, contract)
    if strategy == "fsdp":
        needed: Callable[[int], float] = partial(_planned_bytes, config, contract, processes)
    else:
        needed = partial(_peak_bytes, config, contract, device)
    each = largest_that_fits(lambda samples: needed(samples) <= _SHARE * total, group)
    if each == 0:
        raise RunError(
            f"Not even one group of {group} samples fits {total / 2**30:.0f} GiB. Lower "
            "train.group, phases.pretrain.views.local_count or the prototypes of the heads, or "
            "take a smaller model."
        )
    reason = f"{each} a device is the largest power of two times {group} that fits"
    return each * devices, reason


def largest_that_fits(fits: Callable[[int], bool], unit: int) -> int:
    """Return the largest ``unit * 2**k`` (up to 1024) that fits, 0 if not even ``unit`` does."""
    largest, candidate = 0, unit
    while candidate <= max(_MOST, unit) and fits(candidate):
        largest, candidate = candidate, 2 * candidate
    return largest


def _planned_bytes(
    config: RunConfig, contract: InputContract, processes: Processes, samples: int
) -> float:
    """Bytes that the plan gives a device with ``samples`` samples of networks that are spread."""
    from geodino.runs.build import build_course
    from geodino.runs.memory import memory_plan
    from geodino.runs.networks import computes_in_bfloat16

    config = config.with_values({"train": {"batch": samples * processes.world}})
    plan = memory_plan(
        config,
        contract,
        build_course(config),
        world=processes.world,
        strategy="fsdp",
        bfloat16=computes_in_bfloat16(config, processes.device),
    )
    return float(plan.total)


def _peak_bytes(
    config: RunConfig, contract: InputContract, device: torch.device, samples: int
) -> float:
    """Bytes that one step of ``samples`` takes with optimiser state; infinity if it did not fit."""
    from geodino.runs.build import build_course, build_module, build_planner, resolved_chip

    config = config.with_values({"train": {"batch": samples}})
    chip = resolved_chip(config)
    course = build_course(config)
    module = build_module(config, contract, course).to(device)
    valid = np.ones((samples, chip, chip), dtype=bool)
    plan = build_planner(config, contract, course.phase(0))(0, 0, valid)
    pixels = torch.zeros(
        (samples, len(contract.bands), chip, chip), dtype=getattr(torch, contract.dtype)
    )
    batch = Batch(
        step=0, first=0, pixels=pixels, valid=torch.from_numpy(valid), source=(), plan=plan
    ).to(device)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    bf16 = config.train.precision != "float32"
    try:
        with torch.autocast("cuda", dtype=torch.bfloat16, enabled=bf16):
            losses = module.losses(batch, rates(config.phases.first, 0, batch=samples))
        torch.autograd.backward(losses["total"])
    except torch.cuda.OutOfMemoryError:
        return float("inf")
    moments = 2 * sum(p.numel() * 4 for p in module.student.parameters())
    return float(torch.cuda.max_memory_allocated(device) + moments)
