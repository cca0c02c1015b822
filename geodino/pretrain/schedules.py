"""Schedules as functions of the step: nothing to checkpoint, nothing to fast-forward."""

import math
from typing import Literal

from pydantic import Field

from geodino.config import Config


class ScheduleConfig(Config):
    """Linear warm-up from ``start`` to ``peak``, half a cosine to ``end``, then constant.

    With ``end`` left out the value stays at ``peak``: the constant schedule of DINOv3.
    """

    start: float = 0.0
    """Value at step 0, when there is a warm-up."""

    peak: float
    """Value when the warm-up ends."""

    end: float | None = None
    """Value after the cosine; left out, the schedule is constant after its warm-up."""

    warmup: int = Field(default=0, ge=0)
    """Steps of linear warm-up."""

    cosine: int | None = Field(default=None, ge=0)
    """Steps of the half cosine from ``peak`` to ``end``; left out, all that remain."""

    form: Literal["dinov3", "dinov2"] = "dinov3"
    """Where the ends lie. dinov3: the warm-up excludes its end and the cosine includes both of
    its ends. dinov2: the warm-up includes its end and the cosine never reaches ``end``."""

    def value(self, step: int, total: int) -> float:
        """Return the value at ``step`` (0-based) of a phase of ``total`` steps."""
        if self.end is None:
            end, cosine = self.peak, 0
        else:
            end = self.end
            cosine = max(total - self.warmup, 0) if self.cosine is None else self.cosine
        curve = warmup_cosine if self.form == "dinov3" else warmup_cosine_v2
        return curve(
            step, start=self.start, peak=self.peak, end=end, warmup=self.warmup, cosine=cosine
        )

    def scaled(self, factor: float) -> "ScheduleConfig":
        """Return the schedule with ``peak`` and ``end`` multiplied; ``start`` is kept, as published."""
        end = None if self.end is None else self.end * factor
        return self.model_copy(update={"peak": self.peak * factor, "end": end})


def warmup_cosine(
    step: int, *, start: float, peak: float, end: float, warmup: int, cosine: int
) -> float:
    """The schedule of DINOv3: both ends of the cosine are reached, the warm-up stops short of one.

    ``start + (peak - start) * step / warmup``, then ``cosine`` values from ``peak`` to ``end``
    inclusive, then ``end``.
    """
    if step < warmup:
        return start + (peak - start) * step / warmup
    if step - warmup >= cosine:
        return end
    progress = (step - warmup) / max(cosine - 1, 1)
    return end + 0.5 * (peak - end) * (1.0 + math.cos(math.pi * progress))


def warmup_cosine_v2(
    step: int, *, start: float, peak: float, end: float, warmup: int, cosine: int
) -> float:
    """The schedule of DINO and DINOv2: the warm-up reaches ``peak``, the cosine stops short of ``end``."""
    if step < warmup:
        return start + (peak - start) * step / max(warmup - 1, 1)
    if step - warmup >= cosine:
        return end
    progress = (step - warmup) / cosine
    return end + 0.5 * (peak - end) * (1.0 + math.cos(math.pi * progress))


LrScaling = Literal["none", "sqrt_1024", "linear_256"]
"""How the learning rate follows the global batch: not, as ``4 sqrt(batch / 1024)`` (DINOv3), or
as ``batch / 256`` (DINO)."""


def lr_factor(rule: LrScaling, batch: int) -> float:
    """Return the factor on the learning rate's peak and end for a global batch of ``batch``."""
    if rule == "sqrt_1024":
        return 4.0 * math.sqrt(batch / 1024)
    return batch / 256 if rule == "linear_256" else 1.0
