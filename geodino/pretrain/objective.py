"""The self-supervised objective: DINO on CLS tokens, iBOT on masked patches, KoLeo against collapse.

DINO: arXiv 2104.14294; iBOT: 2111.07832; KoLeo: 1806.03198; their sum: DINOv2 2304.07193 and
DINOv3 2508.10104, section 3.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from geodino.config import Config
from geodino.data.masking import MaskConfig
from geodino.data.views import Views
from geodino.data.views_config import GLOBALS
from geodino.losses.dino import DinoRows, dino_loss, dino_rows
from geodino.losses.ibot import ibot_loss
from geodino.losses.koleo import koleo, koleo_distributed
from geodino.losses.sinkhorn import Targets, sinkhorn
from geodino.metrics.ssl import target_entropy
from geodino.models.backbone import Backbone, Tokens
from geodino.models.heads import HeadConfig, ProjectionHead
from geodino.pretrain.plan import StepPlan


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

    local: float = Field(default=1.0, ge=0)
    """Further weight of the part of DINO that looks at local crops."""

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


class Network(nn.Module):
    """Backbone and heads; the student is one, the teacher is its moving average."""

    def __init__(
        self, backbone: Backbone, dino_head: ProjectionHead, ibot_head: ProjectionHead | None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.dino_head = dino_head
        self.ibot_head = ibot_head

    def parts(self) -> list[nn.Module]:
        """The modules whose gradients are clipped on their own."""
        heads = [self.dino_head] if self.ibot_head is None else [self.dino_head, self.ibot_head]
        return [self.backbone, *heads]


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherTargets:
    """What the teacher asks of the student in one step."""

    cls: Targets
    """Assignments of the CLS tokens of both global crops, crop-major."""

    patches: Targets | None
    """Assignments of the masked patches, in the order of the plan's index."""


class Objective(nn.Module):
    """The losses of one step, as a function of two networks, the crops and the plan."""

    def __init__(self, config: ObjectiveConfig, *, group: int) -> None:
        super().__init__()
        self.config = config
        self.group = group
        self._rows: dict[tuple[int, int, torch.device], DinoRows] = {}

    @torch.no_grad()
    def targets(
        self, teacher: Network, views: Views, plan: StepPlan, *, teacher_temp: float
    ) -> TeacherTargets:
        """Run the teacher on the unmasked global crops and balance its assignments."""
        (tokens,) = teacher.backbone([views.globals])
        iterations = self.config.sinkhorn_iterations
        cls = sinkhorn(teacher.dino_head(tokens.cls), temp=teacher_temp, iterations=iterations)
        if teacher.ibot_head is None or plan.masks is None:
            return TeacherTargets(cls=cls, patches=None)
        masked = _masked(tokens, plan.masks.index)
        patches = sinkhorn(teacher.ibot_head(masked), temp=teacher_temp, iterations=iterations)
        return TeacherTargets(cls=cls, patches=patches)

    def forward(
        self, student: Network, views: Views, plan: StepPlan, targets: TeacherTargets
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted total under ``total`` and each unweighted term under its name."""
        config = self.config
        tokens = student.backbone(
            views.sets,
            masks=[None if plan.masks is None else plan.masks.masks, None][: len(views.sets)],
            draws=plan.encode,
        )
        global_tokens = tokens[0]
        cls = torch.cat([of_set.cls for of_set in tokens])
        head = student.dino_head
        dino = dino_loss(
            head.bottleneck(cls),
            head.last_layer.weight,
            targets.cls,
            self._dino_rows(len(global_tokens.cls) // GLOBALS, len(cls), cls.device),
            student_temp=config.student_temp,
            local_weight=config.local,
        )
        losses = {"dino": dino}
        total = config.dino * dino
        ibot_head = student.ibot_head
        if ibot_head is not None and plan.masks is not None and targets.patches is not None:
            losses["ibot"] = ibot_loss(
                ibot_head.bottleneck(_masked(global_tokens, plan.masks.index)),
                ibot_head.last_layer.weight,
                targets.patches,
                masked=plan.masks.counts,
                student_temp=config.student_temp,
            )
            total = total + config.ibot * losses["ibot"]
        if config.koleo > 0:
            losses["koleo"] = self._koleo(global_tokens.cls.unflatten(0, (GLOBALS, -1)))
            total = total + config.koleo * losses["koleo"]
        entropy = target_entropy(targets.cls)
        return {"total": total, **losses, "target_entropy": entropy}

    def _dino_rows(self, samples: int, crops: int, device: torch.device) -> DinoRows:
        """The pairing of views; it depends on sizes alone and is made once."""
        key = (samples, crops, device)
        if key not in self._rows:
            self._rows[key] = dino_rows(
                samples=samples,
                local_crops=crops // samples - GLOBALS,
                ignore_diagonal=self.config.skip_same_view,
                device=device,
            )
        return self._rows[key]

    def _koleo(self, global_cls: Float[Tensor, "2 b d"]) -> Float[Tensor, ""]:
        """The sum over the two global crops, each among its own samples."""
        settings = self.config.koleo_neighbours
        if settings.kind == "local":
            first, second = (koleo(cls, group=self.group) for cls in global_cls)
        else:
            first, second = (
                koleo_distributed(cls, group=settings.group, top_k=settings.neighbours)
                for cls in global_cls
            )
        return first + second


def _masked(tokens: Tokens, index: Tensor) -> Float[Tensor, "m d"]:
    return tokens.patches.flatten(0, 1).index_select(0, index)
