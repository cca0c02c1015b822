"""The run card: what will happen, how long it takes and what it needs, before it happens."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from geodino.geo.contract import InputContract
from geodino.models.build import assemble
from geodino.runs.build import build_order, whole_batch
from geodino.runs.prepare import Prepared
from geodino.runs.recipe import RunConfig

_EFFICIENCY = (0.25, 0.6)
"""Share of the measured matrix rate that a step reaches: small models and large ones."""

_ACTIVATION_BYTES = {"float32": 68, "bfloat16": 34}
"""Bytes per token, width and block that the backward pass keeps (Korthikanti et al. 2022,
"Reducing activation recomputation", equation 2 without the attention scores)."""


@dataclass(frozen=True, slots=True)
class RunCard:
    """The card as text for people and as facts for programs."""

    text: str
    facts: dict[str, Any]


def run_card(prepared: Prepared, *, device: torch.device, devices: int, out: Path) -> RunCard:
    """Describe a run before it starts."""
    config, index, contract = prepared.config, prepared.index, prepared.contract
    phase, views = config.phases.pretrain, config.phases.pretrain.views
    batch = whole_batch(config)
    order = build_order(config, index, seed=config.train.seed, batch=batch)
    parameters = _parameters(config, contract)
    flops = flops_per_image(config, contract)
    fast, slow = _duration_s(flops * batch * phase.steps / devices, device)
    share = contract.statistics.get("valid_all")
    gsd = "unknown GSD" if index.gsd_m is None else f"{_range(index.gsd_m)} m"
    bands = ", ".join(band.name for band in index.bands)
    epochs = batch * phase.steps / order.samples_per_epoch
    sides = _range([side for t in index.tiles for side in (t.height, t.width)])
    lines = {
        "recipe": config.description,
        "tiles": f"{len(index.tiles)} of {sides} px, {index.dtype}, {gsd}, "
        f"{len([crs for crs in index.crs if crs]) or 'no'} CRS"
        + (f"; {order.too_small} smaller than a chip left out" if order.too_small else "")
        + (f"; {len(index.bad)} UNUSABLE" if index.bad else ""),
        "bands": bands,
        "valid": "all pixels" if share in (None, 1.0) else f"{100 * share:.1f} % of the pixels",
        "model": f"{config.model.name}, patch {config.model.stride}, "
        f"{parameters / 1e6:.1f} M parameters with heads",
        "crops": f"2 x {views.global_size} px"
        + (f" + {views.local_count} x {views.local_size} px" if views.local_count else "")
        + f" from chips of {config.data.chip} px",
        "steps": f"{phase.steps} of {batch} samples: {epochs:.1f} passes over "
        f"{order.samples_per_epoch} chips",
        "device": f"{devices} x {device}" + ("" if device.type == "cuda" else _threads()),
        "time": f"about {_to(_clock(fast), _clock(slow))} ({flops / 1e9:.1f} GFLOP an image)",
        "memory": f"about {_memory_bytes(config, parameters, batch // devices) / 2**30:.1f} GiB "
        "a device",
        "out": str(out),
    }
    notes = [*index.rule.reasons, *index.notes]
    notes += [f"{key} = {d['value']}: {d['reason']}" for key, d in prepared.derived.items()]
    if order.samples_per_epoch < batch:
        notes.append(
            f"a pass has {order.samples_per_epoch} chips, fewer than a batch of {batch}: chips of one "
            "batch repeat each other, and nothing much can be learnt (name more ground)"
        )
    notes += [f"unusable: {reason}" for _, reason in index.bad[:5]]
    width = max(map(len, lines))
    text = "\n".join(
        [f"  {name:<{width}}  {value}" for name, value in lines.items()]
        + [f"  * {note}" for note in notes]
    )
    facts = {
        **{name: value for name, value in lines.items() if name != "recipe"},
        "parameters": parameters,
        "flops_per_image": flops,
        "tiles_unusable": len(index.bad),
        "notes": notes,
        "recipe": config.model_dump(mode="json"),
    }
    return RunCard(text, facts)


def flops_per_image(config: RunConfig, contract: InputContract) -> float:
    """Return the floating-point operations of one step for one sample, counted on the meta device.

    Student forward and backward (three times its forward, less what drop path leaves out), teacher
    forward, heads on CLS tokens and masked patches.
    """
    phase = config.phases.pretrain
    forward = {
        size: _forward_flops(config, contract, size)
        for size in (phase.views.global_size, phase.views.local_size)
    }
    both = 2 * forward[phase.views.global_size]
    local = phase.views.local_count * forward[phase.views.local_size]
    student = 3 * (1 - config.model.drop_path) * (both + local)
    masks = phase.objective.masks
    patches = (phase.views.global_size // config.model.stride) ** 2
    masked = 2 * patches * masks.probability * sum(masks.ratio) / 2
    width = config.model.width
    # Each CLS token passes the student's head (3x) once; those of global crops the teacher's too.
    dino = (3 * (2 + phase.views.local_count) + 2) * _head_flops(config.heads.dino, width)
    ibot = 4 * masked * _head_flops(config.heads.ibot, width) if phase.objective.ibot > 0 else 0.0
    return student + both + dino + ibot


def _forward_flops(config: RunConfig, contract: InputContract, size: int) -> float:
    backbone = assemble(config.model, mean=contract.mean, std=contract.std).eval()
    crop = torch.empty(1, len(contract.bands), size, size, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone.trunk(crop)
    return float(counter.get_total_flops())


def _head_flops(head: Any, width: int) -> float:
    inner = max(head.layers - 2, 0) * head.hidden**2
    return float(
        2
        * (
            width * head.hidden
            + inner
            + head.hidden * head.bottleneck
            + head.bottleneck * head.prototypes
        )
    )


def _parameters(config: RunConfig, contract: InputContract) -> int:
    backbone = assemble(config.model, mean=contract.mean, std=contract.std)
    heads = [config.heads.dino]
    if config.phases.pretrain.objective.ibot > 0:
        heads.append(config.heads.ibot)
    trunk = sum(p.numel() for p in backbone.parameters())
    return trunk + sum(round(_head_flops(head, backbone.dim) / 2) for head in heads)


def _memory_bytes(config: RunConfig, parameters: int, samples: int) -> float:
    """Weights, gradients, two moments and the teacher, and the activations of one step."""
    views = config.phases.pretrain.views
    tokens = samples * sum(
        count * ((size // config.model.stride) ** 2 + 5)
        for count, size in ((2, views.global_size), (views.local_count, views.local_size))
    )
    kind = "float32" if config.train.precision == "float32" else "bfloat16"
    blocks = 1 if config.model.activation_checkpointing else config.model.blocks
    activations = tokens * config.model.width * blocks * _ACTIVATION_BYTES[kind]
    logits = 4.0 * samples * 2 * config.heads.dino.prototypes
    return 20.0 * parameters + activations + logits


def _duration_s(flops: float, device: torch.device) -> tuple[float, float]:
    """Return the time at the high and the low end of what steps reach of the matrix rate."""
    rate = _matrix_rate(device)
    return flops / (rate * _EFFICIENCY[1]), flops / (rate * _EFFICIENCY[0])


def _matrix_rate(device: torch.device) -> float:
    """Measure floating-point operations a second of a matrix product; takes a fraction of a second."""
    cuda = device.type == "cuda"
    n, dtype = (8192, torch.bfloat16) if cuda else (1024, torch.float32)
    a = torch.randn(n, n, generator=torch.Generator().manual_seed(0)).to(device, dtype)
    best = 0.0
    for _ in range(4):
        began = time.perf_counter()
        product = a @ a
        float(product[0, 0])  # waits for the device
        best = max(best, 2 * n**3 / (time.perf_counter() - began))
    return best


def _clock(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 90:
        return f"{max(minutes, 1):.0f} min"
    return f"{minutes / 60:.0f} h" if minutes < 60 * 72 else f"{minutes / 1440:.0f} days"


def _range(values: Sequence[float | int]) -> str:
    low, high = float(min(values)), float(max(values))
    return _to(_number(low), _number(high))


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _to(low: str, high: str) -> str:
    return low if low == high else f"{low} to {high}"


def _threads() -> str:
    return f", {torch.get_num_threads()} threads"
