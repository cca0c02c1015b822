"""What a reader must be told before any result: rules, each with its reason."""

import numpy as np

from geodino.report.content import Curve, Training
from geodino.report.curves import first_and_last
from geodino.report.words import count, number, percent

_WAITS = 0.2
"""Share of the time spent waiting for data from which the loader limits the run."""

_LOST_RANK = 0.5
"""A patch rank below this share of its best says that maps lose detail."""

_SAME = 0.95
"""Mean cosine of two patches of an image from which a map shows nothing any more."""

_GLOBAL = 0.9
"""Mean cosine of patches with the class token from which locality is lost."""

_OUTLIERS = 0.05
"""Share of patches with outlying norms that is visible in maps."""


def training_alarms(training: Training) -> list[str]:
    """Say what is wrong with a run, going by its curves; an empty list if nothing is seen."""
    curves = {curve.name: curve for curve in training.curves}
    return [*_step_alarms(curves), *_health_alarms(curves)]


def _step_alarms(curves: dict[str, Curve]) -> list[str]:
    alarms = []
    skipped = _last(curves, "skipped")
    if skipped:
        alarms.append(f"{count(int(skipped), 'step')} had no finite gradient and changed nothing.")
    broken = [name for name, curve in curves.items() if not np.isfinite(curve.values).all()]
    if broken:
        alarms.append(f"Not finite at some steps: {', '.join(broken)}.")
    ends = first_and_last(curves["loss/total"]) if "loss/total" in curves else None
    if ends is not None and ends[1] >= ends[0]:
        alarms.append(
            f"The loss did not fall: {number(ends[0])} over the first tenth of the steps, "
            f"{number(ends[1])} over the last."
        )
    if "data_wait" in curves:
        waited = float(np.nanmean(curves["data_wait"].values))
        if waited > _WAITS:
            alarms.append(
                f"Training waited for data during {percent(waited)} of its time: the files, not "
                "the device, set the pace."
            )
    return alarms


def _health_alarms(curves: dict[str, Curve]) -> list[str]:
    alarms = []
    rank = curves.get("health/patch_rank")
    if rank is not None:
        best, last = int(np.nanargmax(rank.values)), float(rank.values[-1])
        if last < _LOST_RANK * rank.values[best]:
            alarms.append(
                f"Patch tokens use fewer directions than before: effective rank {number(last)} at "
                f"the end, {number(float(rank.values[best]))} at step {rank.steps[best]:,.0f}."
            )
    for name, limit, text in (
        ("patch_patch_cosine", _SAME, "All patches of an image look the same to the model"),
        ("cls_patch_cosine", _GLOBAL, "Patch tokens point where the class token points"),
        ("outlier_share", _OUTLIERS, "Many patch tokens have outlying norms"),
    ):
        value = _last(curves, f"health/{name}")
        if value is not None and value > limit:
            alarms.append(f"{text} ({name.replace('_', ' ')} {number(value)}).")
    return alarms


def _last(curves: dict[str, Curve], name: str) -> float | None:
    if name not in curves:
        return None
    finite = curves[name].values[np.isfinite(curves[name].values)]
    return float(finite[-1]) if len(finite) else None
