"""What a recipe says of the objective: weights, temperatures, masks, heads."""

from typing import Literal

from pydantic import Field

from geodino.config import Config
from geodino.data.masking import MaskConfig
from geodino.models.heads import HeadConfig


class HeadsConfig(Config):
    """The two projection heads; they are kept apart, as in DINOv2 and DINOv3."""

    dino: HeadConfig = HeadConfig()
    """Head on the CLS token."""

    ibot: HeadConfig = HeadConfig()
    """Head on the masked patches."""


class KoleoConfig(Config):
    """KoLeo spreads the CLS tokens of one crop over the sphere."""

    kind: Literal["local", "distributed"] = "local"
    """local: neighbours within each ``train.group``. distributed: over all ranks."""

    neighbours: int = Field(default=1, ge=1)
    """Nearest neighbours to move away from (distributed only)."""

    group: int | None = Field(default=None, ge=2)
    """Samples among which neighbours are searched (distributed only); left out, the whole batch."""


class ObjectiveConfig(Config):
    """What is minimised: weights, temperatures, masks."""

    dino: float = Field(default=1.0, ge=0)
    """Weight of the DINO term."""

    ibot: float = Field(default=1.0, ge=0)
    """Weight of the iBOT term; 0 builds no iBOT head and masks nothing."""

    koleo: float = Field(default=0.1, ge=0)
    """Weight of KoLeo, for each global crop."""

    student_temp: float = Field(default=0.1, gt=0)
    """Temperature of the student's softmax."""

    sinkhorn_iterations: int = Field(default=3, ge=1, le=6)
    """Iterations of Sinkhorn-Knopp on the teacher's logits."""

    skip_same_view: bool = True
    """Leave out the pairs in which student and teacher saw the same global crop."""

    masks: MaskConfig = MaskConfig()
    """Which patches of the student's global crops are masked."""

    koleo_neighbours: KoleoConfig = KoleoConfig()
    """How KoLeo looks for neighbours."""
