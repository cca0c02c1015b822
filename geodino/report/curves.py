"""From lines of metrics to curves, and from long curves to short ones that show the same."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from geodino.report.content import Curve, Row, Training

POINTS = 240
"""Points a plotted curve has at most."""

_NOT_CURVES = frozenset({"step", "phase", "time", "skipped_in_a_row"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Short:
    """A curve of few points; each stands for a run of neighbouring ones."""

    steps: Float[ndarray, " n"]
    mean: Float[ndarray, " n"]
    low: Float[ndarray, " n"]
    high: Float[ndarray, " n"]


def training_of(rows: Sequence[Row]) -> Training:
    """Sort the scalars of a run into curves, in the order in which they first occur.

    Steps that begin again with a new phase are counted on from the last one of the phase before.
    """
    steps: dict[str, list[float]] = {}
    values: dict[str, list[float]] = {}
    phases: list[tuple[str, float]] = []
    offset, last = 0.0, 0.0
    for row in rows:
        phase = str(row["phase"])
        if not phases or phase != phases[-1][0]:
            if phases and row["step"] + offset < last:
                offset = last - row["step"]
            phases.append((phase, row["step"] + offset))
        at = row["step"] + offset
        last = max(last, at)
        for name, value in row.items():
            if name not in _NOT_CURVES:
                steps.setdefault(name, []).append(at)
                values.setdefault(name, []).append(np.nan if value is None else float(value))
    return Training(
        curves=tuple(
            Curve(name=name, steps=np.array(steps[name]), values=np.array(values[name]))
            for name in values
        ),
        phases=tuple(phases),
    )


def shortened(curve: Curve, *, points: int = POINTS) -> Short:
    """Reduce a curve to at most ``points`` points: mean, lowest and highest of equal parts.

    Values that are not finite count for nothing; a part that has no other is left out.
    """
    usable = np.isfinite(curve.values)
    steps, values = curve.steps[usable], curve.values[usable]
    if len(values) <= points:
        return Short(steps=steps, mean=values, low=values, high=values)
    starts = np.linspace(0, len(values), points, endpoint=False).astype(np.int64)
    sizes = np.diff(starts, append=len(values))
    return Short(
        steps=np.add.reduceat(steps, starts) / sizes,
        mean=np.add.reduceat(values, starts) / sizes,
        low=np.minimum.reduceat(values, starts),
        high=np.maximum.reduceat(values, starts),
    )


def is_constant(curve: Curve) -> bool:
    """Whether a curve has one value from its first step to its last."""
    finite = curve.values[np.isfinite(curve.values)]
    return bool(len(finite) == len(curve.values) and (finite == finite[:1]).all())


def first_and_last(curve: Curve, *, share: float = 0.1) -> tuple[float, float] | None:
    """Return the mean of the first and of the last tenth; None where nothing is finite."""
    values = curve.values[np.isfinite(curve.values)]
    if not len(values):
        return None
    n = max(1, int(share * len(values)))
    return float(values[:n].mean()), float(values[-n:].mean())


def seconds_of_steps(rows: Sequence[Row], *, batch: int) -> float:
    """Return the time spent in training steps: what was trained over the pace it was trained at.

    Interruptions, checkpoints and health measurements do not count.
    """
    total, before = 0.0, -1
    for row in rows:
        if "images_per_s" not in row:
            continue
        if pace := row["images_per_s"]:  # neither unknown nor 0
            total += (row["step"] - before) * batch / pace
        before = row["step"]
    return total
