"""The objective as its equations read, pair by pair: slow and obviously right."""

import torch
from torch.nn import functional as F

from geodino.data.views_config import GLOBALS


def balanced(logits, temp, iterations=3):
    """Sinkhorn-Knopp as its definition reads (Caron et al. 2020, equation 5)."""
    q = torch.exp(logits / temp).T
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True) / q.shape[0]
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    return (q * q.shape[1]).T


def pair_entropy(target, logits):
    return -(target * F.log_softmax(logits / 0.1, dim=-1)).sum()


def written_out(student, teacher, views, plan, *, group, temp, gram_teacher=None, local_weight=1.0):
    """DINO over pairs of crops, iBOT over masked patches, KoLeo over nearest neighbours, Gram."""
    samples = len(views.globals) // GLOBALS
    masks = None if plan.masks is None else plan.masks.masks
    (seen,) = teacher.backbone([views.globals])
    tokens = student.backbone(views.sets, masks=[masks, None][: len(views.sets)], draws=plan.encode)
    target = balanced(teacher.dino_head(seen.cls), temp)
    crops = torch.cat([student.dino_head(of_set.cls) for of_set in tokens]).split(samples)
    pairs = [
        pair_entropy(target[teachers * samples + i], crop[i])
        * (1.0 if number < GLOBALS else local_weight)
        for number, crop in enumerate(crops)
        for teachers in range(GLOBALS)
        if number != teachers
        for i in range(samples)
    ]
    terms = {"dino": torch.stack(pairs).mean(), "koleo": torch.zeros((), dtype=target.dtype)}
    if masks is not None:
        logits = student.ibot_head(tokens[0].patches[masks])
        wanted = balanced(teacher.ibot_head(seen.patches[masks]), temp)
        shares = torch.cat([torch.full((n,), 1 / n) for n in masks.sum(1).tolist() if n])
        each = [s * pair_entropy(w, x) for s, w, x in zip(shares, wanted, logits, strict=True)]
        terms["ibot"] = torch.stack(each).sum() / len(masks)
    for near in F.normalize(tokens[0].cls, dim=-1).split(group):
        distance = torch.cdist(near, near) + 10 * torch.eye(group)
        terms["koleo"] -= torch.log(distance.amin(1) + 1e-8).mean() / (samples // group)
    if gram_teacher is not None:
        (large,) = gram_teacher([views.gram])
        small = F.interpolate(large.map, size=seen.grid, mode="bicubic", align_corners=False)
        x, y = F.normalize(tokens[0].patches, dim=-1), F.normalize(small.flatten(2).mT, dim=-1)
        terms["gram"] = (x @ x.mT - y @ y.mT).square().mean()
    return terms
