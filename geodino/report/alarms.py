"""What a reader must be told before any result: rules, each with its reason."""

import numpy as np
from jaxtyping import Float
from numpy import ndarray

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
    skipped = _finite(curves, "skipped")
    if len(skipped) and skipped[-1]:
        alarms.append(
            f"{count(int(skipped[-1]), 'step')} had no finite gradient and changed nothing."
        )
    broken = [name for name, curve in curves.items() if not np.isfinite(curve.values).all()]
    if broken:
        alarms.append(f"Not finite at some steps: {', '.join(broken)}.")
    ends = first_and_last(curves["loss/total"]) if "loss/total" in curves else None
    if ends is not None and ends[1] >= ends[0]:
        alarms.append(
            f"The loss did not fall: {number(ends[0])} over the first tenth of the steps, "
            f"{number(ends[1])} over the last."
        )
    waits = _finite(curves, "data_wait")
    if len(waits) and waits.mean() > _WAITS:
        alarms.append(
            f"Training waited for data during {percent(float(waits.mean()))} of its time: the "
            "files, not the device, set the pace."
        )
    return alarms


def _health_alarms(curves: dict[str, Curve]) -> list[str]:
    alarms = []
    ranks = _finite(curves, "health/patch_rank")
    if len(ranks) and ranks[-1] < _LOST_RANK * ranks.max():
        alarms.append(
            "Patch tokens use fewer directions than before: effective rank "
            f"{number(float(ranks[-1]))} at the end, {number(float(ranks.max()))} at best."
        )
    for name, limit, text in (
        ("patch_patch_cosine", _SAME, "All patches of an image look the same to the model"),
        ("cls_patch_cosine", _GLOBAL, "Patch tokens point where the class token points"),
        ("outlier_share", _OUTLIERS, "Many patch tokens have outlying norms"),
    ):
        values = _finite(curves, f"health/{name}")
        if len(values) and values[-1] > limit:
            alarms.append(f"{text} ({name.replace('_', ' ')} {number(float(values[-1]))}).")
    return alarms


def _finite(curves: dict[str, Curve], name: str) -> Float[ndarray, " n"]:
    values = curves[name].values if name in curves else np.empty(0)
    return values[np.isfinite(values)]
