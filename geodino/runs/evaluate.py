"""``geodino evaluate``: probes on frozen features, beside their floors."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodino.evals.suite import evaluate_folder
from geodino.models.build import build_backbone
from geodino.runs.device import choose_device
from geodino.runs.models import open_model
from geodino.runs.networks import seeded_generator
from geodino.runs.record import RunLog


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluateJob:
    """What ``geodino evaluate`` was asked."""

    model: str
    suite: Path
    out: Path
    probes: tuple[str, ...]
    seed: int = 0
    device: str = "auto"
    quiet: bool = False


def evaluate(job: EvaluateJob) -> dict[str, Any]:
    """Probe a model on an image folder; write and return accuracies, floors and alarms.

    Returns:
        ``table`` (text), ``rows``, ``alarms`` and the folder they were written to.
    """
    device = choose_device(job.device)
    loaded = open_model(job.model).loaded
    log = RunLog(None, quiet=job.quiet)
    untrained = build_backbone(
        loaded.config, loaded.contract, generator=seeded_generator(job.seed, "random weights")
    )
    result = evaluate_folder(
        loaded.backbone.to(device),
        untrained.eval().to(device),
        loaded.contract,
        job.suite,
        probes=job.probes,
        out=job.out,
        seed=job.seed,
        name=job.model,
        device=device,
    )
    log.say(result.table())
    return {"rows": result.rows, "alarms": list(result.alarms), "out": str(job.out)}
