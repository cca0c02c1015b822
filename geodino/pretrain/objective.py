"""The self-supervised objective: DINO on CLS tokens, iBOT on masked patches, KoLeo against collapse.

DINO: arXiv 2104.14294; iBOT: 2111.07832; KoLeo: 1806.03198; their sum: DINOv2 2304.07193 and
DINOv3 2508.10104, section 3; Gram anchoring of the patches: DINOv3, section 4.
"""

from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn

from geodino.data.views import Views
from geodino.data.views_config import GLOBALS
from geodino.losses.dino import DinoRows, dino_loss, dino_rows
from geodino.losses.gram import gram_loss, to_grid
from geodino.losses.ibot import ibot_loss
from geodino.losses.koleo import koleo, koleo_distributed
from geodino.losses.sinkhorn import Targets, sinkhorn
from geodino.metrics.ssl import target_entropy
from geodino.models.backbone import Backbone, Tokens
from geodino.models.heads import ProjectionHead
from geodino.pretrain.gram import GramConfig
from geodino.pretrain.objective_config import ObjectiveConfig
from geodino.pretrain.plan import StepPlan


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

    gram: Float[Tensor, "n p d"] | None = None
    """Patches of the Gram teacher for the global crops, on the student's grid."""


class Objective(nn.Module):
    """The losses of one step, as a function of the networks, the crops and the plan.

    Args:
        config: weights, temperatures.
        group: samples among which KoLeo looks for neighbours.
        gram: Gram anchoring, or None.
        masks_input: whether the student sees the mask token where patches are masked. In
            distillation it sees everything, and masks only say which patches are compared.
    """

    def __init__(
        self,
        config: ObjectiveConfig,
        *,
        group: int,
        gram: GramConfig | None = None,
        masks_input: bool = True,
    ) -> None:
        super().__init__()
        self.masks_input = masks_input
        self.config = config
        self.gram = gram
        self.group = group
        self._rows: dict[tuple[int, int, torch.device], DinoRows] = {}

    @torch.no_grad()
    def targets(
        self,
        teacher: Network,
        views: Views,
        plan: StepPlan,
        *,
        teacher_temp: float,
        gram_teacher: Backbone | None = None,
    ) -> TeacherTargets:
        """Run the teacher on the unmasked global crops and balance its assignments.

        With a Gram teacher, it runs on the Gram crops, and its patches come to the teacher's grid.
        """
        (tokens,) = teacher.backbone([views.globals])
        iterations = self.config.sinkhorn_iterations
        cls = sinkhorn(teacher.dino_head(tokens.cls), temp=teacher_temp, iterations=iterations)
        patches = None
        if teacher.ibot_head is not None and plan.masks is not None:
            masked = _masked(tokens, plan.masks.index)
            patches = sinkhorn(teacher.ibot_head(masked), temp=teacher_temp, iterations=iterations)
        gram = None
        if self.gram is not None and gram_teacher is not None and views.gram is not None:
            (seen,) = gram_teacher([views.gram])
            gram = to_grid(seen.map, tokens.grid, antialias=self.gram.antialias)
        return TeacherTargets(cls=cls, patches=patches, gram=gram)

    def forward(
        self,
        student: Network,
        views: Views,
        plan: StepPlan,
        targets: TeacherTargets,
        *,
        local_weight: float = 1.0,
        gram_weight: float = 0.0,
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted total under ``total`` and each unweighted term under its name.

        Args:
            student: the network that learns.
            views: the crops.
            plan: masks and draws of the step.
            targets: of the same crops.
            local_weight: further weight of the part of DINO that looks at local crops.
            gram_weight: weight of Gram anchoring, where the targets have it.
        """
        config = self.config
        hidden = plan.masks.masks if self.masks_input and plan.masks is not None else None
        tokens = student.backbone(
            views.sets, masks=[hidden, None][: len(views.sets)], draws=plan.encode
        )
        global_tokens = tokens[0]
        cls = torch.cat([of_set.cls for of_set in tokens])
        dino = student.dino_head(
            cls,
            loss=partial(
                dino_loss,
                targets=targets.cls,
                rows=self._dino_rows(len(global_tokens.cls) // GLOBALS, len(cls), cls.device),
                student_temp=config.student_temp,
                local_weight=local_weight,
            ),
        )
        losses = {"dino": dino}
        total = config.dino * dino
        ibot_head = student.ibot_head
        if ibot_head is not None and plan.masks is not None and targets.patches is not None:
            losses["ibot"] = ibot_head(
                _masked(global_tokens, plan.masks.index),
                loss=partial(
                    ibot_loss,
                    targets=targets.patches,
                    masked=plan.masks.counts,
                    student_temp=config.student_temp,
                ),
            )
            total = total + config.ibot * losses["ibot"]
        if config.koleo > 0:
            losses["koleo"] = self._koleo(global_tokens.cls.unflatten(0, (GLOBALS, -1)))
            total = total + config.koleo * losses["koleo"]
        if self.gram is not None and targets.gram is not None:
            losses["gram"] = self._gram(self.gram, global_tokens.patches, targets.gram, plan)
            total = total + gram_weight * losses["gram"]
        entropy = target_entropy(targets.cls)
        return {"total": total, **losses, "target_entropy": entropy}

    def _gram(
        self, config: GramConfig, student: Tensor, teacher: Tensor, plan: StepPlan
    ) -> Float[Tensor, ""]:
        keep = None
        if config.patches != "all" and plan.masks is not None:
            keep = plan.masks.masks if config.patches == "masked" else ~plan.masks.masks
        return gram_loss(
            student,
            teacher,
            per=config.per,
            normalise=config.normalise,
            clip=config.clip,
            keep=keep,
        )

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
