"""The DINO loss: CLS features of every student view against the teacher's assignments."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from geodino.losses.cross_entropy import prototype_cross_entropy
from geodino.losses.sinkhorn import Targets


@dataclass(frozen=True, kw_only=True, slots=True)
class DinoRows:
    """Which teacher samples each student row is compared with, for crop-major views.

    Student rows are ``[(globals + locals) * samples]``, teacher rows ``[globals * samples]``: all
    samples of the first crop, then all of the second, global crops first. Build it once and keep
    it on the device.
    """

    target_rows: Int[Tensor, "n m"]
    """Teacher rows; ``m`` is the number of teacher views."""

    global_weights: Float[Tensor, "n m"]
    """Weights of the pairs of two global crops; 0 on rows of local crops."""

    local_weights: Float[Tensor, "n m"]
    """Weights of the pairs of a local and a global crop; 0 on rows of global crops."""


def dino_rows(
    *,
    samples: int,
    global_crops: int = 2,
    local_crops: int = 8,
    ignore_diagonal: bool = True,
    device: torch.device | None = None,
) -> DinoRows:
    """Pair views as DINOv3 does, with weights that average over samples and pairs.

    With ``g`` pairs of two global crops (``g = n_g (n_g - 1)`` when a crop is not compared with
    itself, else ``n_g^2``) and ``l = n_g n_l`` pairs with a local crop, the loss is
    ``g/(g+l) mean_global + l/(g+l) mean_local``: every pair of every sample weighs the same.

    Args:
        samples: samples of this rank.
        global_crops: views the teacher sees, ``n_g``.
        local_crops: further views of the student, ``n_l``.
        ignore_diagonal: leave out the pairs where both sides saw the same crop.
        device: where the rows live.

    Raises:
        ValueError: there is no pair at all.
    """
    student = torch.arange(global_crops + local_crops).repeat_interleave(samples)
    sample = torch.arange(samples).repeat(global_crops + local_crops)
    teacher = torch.arange(global_crops)
    paired = torch.ones(len(student), global_crops, dtype=torch.bool)
    if ignore_diagonal:
        paired = student[:, None] != teacher
    pairs = int(paired.sum())
    if pairs == 0:
        raise ValueError(
            f"{global_crops} global and {local_crops} local crops of {samples} samples leave no "
            "pair of views to compare"
        )
    weights = paired.to(torch.float32) / pairs
    is_global = (student < global_crops)[:, None]
    return DinoRows(
        target_rows=(teacher * samples + sample[:, None]).to(device),
        global_weights=(weights * is_global).to(device),
        local_weights=(weights * ~is_global).to(device),
    )


def dino_loss(
    features: Float[Tensor, "n d"],
    prototypes: Float[Tensor, "k d"],
    targets: Targets,
    rows: DinoRows,
    *,
    student_temp: float = 0.1,
    local_weight: float | Tensor = 1.0,
) -> Float[Tensor, ""]:
    """Return the DINO loss of one rank: global and local terms with the method's scaling.

    Args:
        features: bottleneck outputs of the student's CLS tokens, crop-major, globals first.
        prototypes: weight of the DINO head's last layer.
        targets: assignments of the teacher's CLS tokens, crop-major.
        rows: from `dino_rows` for the same crops and samples.
        student_temp: the paper's tau_s.
        local_weight: multiplies the local term (a schedule of the method).
    """
    return prototype_cross_entropy(
        features,
        prototypes,
        targets,
        target_rows=rows.target_rows,
        row_weights=rows.global_weights + rows.local_weights * local_weight,
        student_temp=student_temp,
    )


def dino_cross_entropy(
    student_logits: Float[Tensor, "s b k"],
    teacher_probs: Float[Tensor, "t b k"],
    *,
    student_temp: float,
    skip_same_view: bool,
) -> Float[Tensor, ""]:
    r"""Cross-entropy of every student view against every teacher view; the plain definition.

    .. math:: \frac{1}{|P| B} \sum_{(s,t) \in P} \sum_b -\,p^t_b \cdot \log q^s_b

    where ``P`` is the set of (student, teacher) view pairs (Caron et al. 2021, "Emerging
    properties", equation 3). Holds all logits; `dino_loss` is what training uses.

    Args:
        student_logits: raw head outputs, one row per view and sample.
        teacher_probs: centred and sharpened, summing to 1 over ``k``; no gradient.
        student_temp: the paper's tau_s (0.1).
        skip_same_view: leave out pairs ``s == t``, where both sides saw the same crop.
    """
    log_q = torch.log_softmax(student_logits / student_temp, dim=-1)
    pairs = -torch.einsum("sbk,tbk->st", log_q, teacher_probs)
    s, t = pairs.shape
    count = s * t
    if skip_same_view:
        same = torch.eye(s, t, dtype=torch.bool, device=pairs.device)
        pairs = pairs.masked_fill(same, 0.0)
        count -= min(s, t)
    return pairs.sum() / (count * student_logits.shape[1])
