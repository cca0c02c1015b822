"""Gram anchoring as a part of a phase: which teacher, which crops, how strongly."""

from typing import Literal

from pydantic import Field, model_validator

from geodino.config import Config
from geodino.losses.gram import Clip, Per
from geodino.pretrain.schedules import ScheduleConfig


class GramConfig(Config):
    """Keeps the similarities between patches near those of a frozen teacher (DINOv3, section 4)."""

    weight: ScheduleConfig = ScheduleConfig(peak=0.0, end=2.0, cosine=1000)
    """Weight of the term; in the paper it rises to 2 within 1,000 steps."""

    teacher: str = "best"
    """Whose similarities are kept. ``best``: the teacher of this run where its dense features were
    healthiest (``health.watch``; the one at the start of the phase where none was measured), which
    is early in a long run; a later phase keeps it. ``start``:
    the teacher as it is when the phase begins. ``ema``: the teacher as it moves. Or a model: run
    folder, model folder, or released weights."""

    scale: float = Field(default=2.0, gt=0)
    """Side of the Gram teacher's crops, as a multiple of the global crops'; its features are resized
    to the student's grid."""

    per: Per = "image"
    """Patches are compared within their image, or with all images of a device."""

    normalise: bool = True
    """Compare cosines; otherwise inner products."""

    clip: Clip = "none"
    """What happens to negative similarities: ``none``, ``both`` become 0, ``where_teacher_negative``
    the student's too, or ``teacher`` only the teacher's, as the release computes."""

    antialias: bool = False
    """Whether features are smoothed before they are resized."""

    patches: Literal["all", "masked", "unmasked"] = "all"
    """Which patches are compared: all, or those that the student sees masked or unmasked."""

    refresh_every: int = Field(default=0, ge=0)
    """Steps of the phase after which the Gram teacher becomes the teacher of that moment, again and
    again; 0 never (10,000 in the paper)."""

    refresh_most: int = Field(default=3, ge=1)
    """How often that happens at most."""

    @model_validator(mode="after")
    def _can_be_refreshed(self) -> "GramConfig":
        if self.teacher == "ema" and self.refresh_every:
            raise ValueError("teacher ema moves by itself: leave refresh_every at 0")
        return self

    def refreshes_at(self, step: int) -> bool:
        """Whether the Gram teacher is replaced before ``step`` (0-based) of the phase."""
        every = self.refresh_every
        return every > 0 and 0 < step <= every * self.refresh_most and step % every == 0

    def crop_size(self, global_size: int, stride: int) -> int:
        """Return the side of the Gram teacher's crop, a multiple of the patch, nearest to ``scale``."""
        return max(round(global_size * self.scale / stride), 1) * stride
