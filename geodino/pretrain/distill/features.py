"""Distillation from features: a student's tokens, projected, against those of the teacher.

For teachers without heads. Each student has two linear maps from its width to the teacher's, one
for the CLS token and one for patches, which are dropped at the end. Cosine for CLS tokens, 0.9
cosine + 0.1 smooth L1 for patches, as AM-RADIO (arXiv 2312.06709, section 3.3) distils.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from geodino.data.views import Views
from geodino.data.views_config import GLOBALS
from geodino.losses.koleo import koleo
from geodino.models.backbone import Backbone
from geodino.pretrain.distill.config import FeaturesConfig
from geodino.pretrain.objective_config import ObjectiveConfig
from geodino.pretrain.plan import StepPlan


@dataclass(frozen=True, kw_only=True, slots=True)
class FeatureTargets:
    """The teacher's tokens of both global crops, each brought to mean 0 and variance 1."""

    cls: Float[Tensor, "b d"]
    patches: Float[Tensor, "b n d"]


class Headless(nn.Module):
    """A teacher of which only the tokens are used."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone


class Imitator(nn.Module):
    """A student with its projections to the teacher's width."""

    def __init__(self, backbone: Backbone, *, teacher_dim: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.cls_projection = nn.Linear(backbone.dim, teacher_dim)
        self.patch_projection = nn.Linear(backbone.dim, teacher_dim)

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw the projections so that they keep the scale of what passes; biases become 0."""
        for layer in (self.cls_projection, self.patch_projection):
            std = layer.in_features**-0.5
            nn.init.trunc_normal_(layer.weight, std=std, generator=generator)
            nn.init.zeros_(layer.bias)

    def parts(self) -> list[nn.Module]:
        """The modules whose gradients are clipped on their own."""
        return [self.backbone, self.cls_projection, self.patch_projection]


class FeatureObjective(nn.Module):
    """The losses of one step of one student.

    Args:
        config: weights of the terms.
        objective: the weight of KoLeo.
        group: samples among which KoLeo looks for neighbours.
    """

    def __init__(self, config: FeaturesConfig, objective: ObjectiveConfig, *, group: int) -> None:
        super().__init__()
        self.config, self.objective, self.group = config, objective, group

    @torch.no_grad()
    def targets(
        self, teacher: Headless, views: Views, plan: StepPlan, *, teacher_temp: float
    ) -> FeatureTargets:
        """Run the teacher on the global crops; its tokens need no temperature."""
        (tokens,) = teacher.backbone([views.globals])
        return FeatureTargets(cls=standardised(tokens.cls), patches=standardised(tokens.patches))

    def forward(
        self,
        student: Imitator,
        views: Views,
        plan: StepPlan,
        targets: FeatureTargets,
        *,
        local_weight: float = 1.0,
    ) -> dict[str, Float[Tensor, ""]]:
        """Return the weighted total under ``total`` and each unweighted term under its name.

        Only the crops that the teacher saw count: what a local crop is called by the teacher is
        not known without running it.
        """
        config = self.config
        (tokens,) = student.backbone([views.globals], draws=plan.encode)
        losses = {
            "cls": cosine_distance(student.cls_projection(tokens.cls), targets.cls),
            "patches": patch_distance(
                student.patch_projection(tokens.patches), targets.patches, cosine=config.cosine
            ),
        }
        total = config.cls * losses["cls"] + config.patches * losses["patches"]
        if self.objective.koleo > 0:
            first, second = (
                koleo(cls, group=self.group) for cls in tokens.cls.unflatten(0, (GLOBALS, -1))
            )
            losses["koleo"] = first + second
            total = total + self.objective.koleo * losses["koleo"]
        return {"total": total, **losses}


def standardised(x: Float[Tensor, "*rows d"]) -> Float[Tensor, "*rows d"]:
    """Bring each vector to mean 0 and variance 1, so that all teachers have one scale."""
    return F.layer_norm(x.to(torch.promote_types(x.dtype, torch.float32)), x.shape[-1:])


def cosine_distance(
    student: Float[Tensor, "*rows d"], teacher: Float[Tensor, "*rows d"]
) -> Float[Tensor, ""]:
    """Return the mean over rows of 1 - cos."""
    wide = student.to(teacher.dtype)
    return 1.0 - F.cosine_similarity(wide, teacher, dim=-1).mean()


def patch_distance(
    student: Float[Tensor, "b n d"], teacher: Float[Tensor, "b n d"], *, cosine: float
) -> Float[Tensor, ""]:
    """Return ``cosine`` parts of the cosine distance and the rest of the smooth L1 distance."""
    direct = F.smooth_l1_loss(student.to(teacher.dtype), teacher)
    return cosine * cosine_distance(student, teacher) + (1.0 - cosine) * direct
