"""From lines of metrics to curves, and from long curves to short ones that show the same."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from geodino.report.content import Curve, Row, Training

POINTS = 240
"""Points a plotted curve has at most."""

_NOT_CURVES = frozenset({"step", "phase", "time", "samples", "skipped_in_a_row"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Short:
    """A curve of few points; each stands for a run of neighbouring ones."""

    steps: Float[ndarray, " n"]
    mean: Float[ndarray, " n"]
    low: Float[ndarray, " n"]
    high: Float[ndarray, " n"]


def training_of(rows: Sequence[Row]) -> Training:
    """Sort the scalars of a run into curves, in the order in which they first occur.

    Rows of one step may come in any order; a phase begins at the smallest of its steps.
    """
    steps: dict[str, list[float]] = {}
    values: dict[str, list[float]] = {}
    begins: dict[str, float] = {}
    for row in rows:
        phase = str(row["phase"])
        at = float(row["step"])
        begins[phase] = min(begins.get(phase, at), at)
        for name, value in row.items():
            if name not in _NOT_CURVES:
                steps.setdefault(name, []).append(at)
                values.setdefault(name, []).append(np.nan if value is None else float(value))
    return Training(
        curves=tuple(
            Curve(name=name, steps=np.array(steps[name]), values=np.array(values[name]))
            for name in values
        ),
        phases=tuple(sorted(begins.items(), key=lambda item: item[1])),
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


def chips_seen(rows: Sequence[Row], *, batch: int) -> int:
    """Return how many chips the steps on record had; of ``batch`` chips where rows do not say."""
    return max((_chips_by(row, batch) for row in rows if "images_per_s" in row), default=0)


def seconds_of_steps(rows: Sequence[Row], *, batch: int) -> float:
    """Return the time spent in training steps: what was trained over the pace it was trained at.

    Interruptions, checkpoints and health measurements do not count.

    Args:
        rows: of metrics.jsonl.
        batch: chips of a step, where rows do not say how many there were so far.
    """
    total, before = 0.0, 0
    for row in rows:
        if "images_per_s" not in row:
            continue
        chips = _chips_by(row, batch)
        if pace := row["images_per_s"]:  # neither unknown nor 0
            total += (chips - before) / pace
        before = chips
    return total


def _chips_by(row: Row, batch: int) -> int:
    """Chips seen by the end of a row's step."""
    return int(row.get("samples", (row["step"] + 1) * batch))
