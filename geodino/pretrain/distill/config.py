"""What a recipe says of distillation: targets and phases."""

from typing import Literal

from pydantic import Field, field_validator

from geodino.config import Config
from geodino.pretrain.phases import PhaseConfig, Phases


class FeaturesConfig(Config):
    """How features are compared where the teacher has no heads (AM-RADIO, arXiv 2312.06709)."""

    cls: float = Field(default=1.0, ge=0)
    """Weight of the CLS tokens."""

    patches: float = Field(default=1.0, ge=0)
    """Weight of the patches."""

    cosine: float = Field(default=0.9, ge=0, le=1)
    """Share of the cosine distance in the comparison of patches; the rest is the smooth L1
    distance. CLS tokens are compared by their cosine alone."""


class TargetsConfig(Config):
    """What the teacher asks of its students."""

    targets: Literal["auto", "heads", "features"] = "auto"
    """``heads``: the assignments of the teacher's DINO and iBOT heads, as DINOv3 distils.
    ``features``: its tokens themselves, which every model has. ``auto``: heads where the teacher
    has them."""

    features: FeaturesConfig = FeaturesConfig()
    """How features are compared."""


class DistillPhasesConfig(Phases):
    """The phases of distillation in the order they run."""

    distill: PhaseConfig
    """Learning from the teacher. ``momentum`` is that of each student's moving average, which is
    what is exported."""

    cooldown: PhaseConfig | None = None
    """The same with a learning rate that falls: 250,000 steps after 1,000,000 in DINOv3."""

    @field_validator("distill", "cooldown")
    @classmethod
    def _goes_on_from_itself(cls, phase: PhaseConfig | None) -> PhaseConfig | None:
        if phase is not None and phase.gram is not None:
            raise ValueError("distillation has no Gram anchoring: its teacher does not move")
        if phase is not None and phase.begin != "student":
            raise ValueError("begin: a phase of distillation begins with the students as they are")
        return phase
