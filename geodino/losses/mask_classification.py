"""Losses of heads that answer with a set of masks and a class for each: mask classification.

After Mask2Former (Cheng et al. 2022, arXiv 2112.01527) with one true mask for each class that an
image holds. Each true mask is matched with one query, and what the query says is compared with it;
the other queries shall say "no object". Pixels that do not count are never drawn, so they change
no bit: the usual implementations count them as outside of every mask instead.

All sums are float32.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64
from scipy.optimize import linear_sum_assignment
from torch import Tensor

_OVERSAMPLED, _HARD = 3, 0.75
"""Pixels looked at for each that is kept, and the share that is kept for being unsure (PointRend,
Kirillov et al. 2020, arXiv 1912.08193, with the paper's values)."""

_FORBIDDEN = 1e6
"""Cost of a pair without a finite one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueryWeights:
    """How much each loss counts, in the matching and in the sum. The defaults are the paper's."""

    classes: float = 2.0
    mask: float = 5.0
    dice: float = 5.0

    no_object: float = 0.1
    """Of a query without a mask, in the loss of the classes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrueMasks:
    """What one image teaches: its valid pixels, and one mask for each class among them."""

    image: int
    """Its number in the batch."""

    size: tuple[int, int]
    """Rows and columns, pixels."""

    pixels: Int64[Tensor, " n"]
    """The valid ones, numbered row by row."""

    labels: Int64[Tensor, " n"]
    """The class of each."""

    classes: Int64[Tensor, " m"]
    """Those that occur, ascending."""

    def of(self, drawn: Int64[Tensor, "r p"]) -> Float[Tensor, "m p"]:
        """Return 1 where a drawn pixel is of a mask, else 0.

        Args:
            drawn: places among ``pixels``, for each mask its own or one row for all.
        """
        return (self.labels[drawn] == self.classes[:, None]).float()


def true_masks(
    target: Int64[Tensor, "b h w"], valid: Bool[Tensor, "b h w"]
) -> tuple[TrueMasks, ...]:
    """Return what each image teaches; images without a valid pixel teach nothing and are left out.

    Args:
        target: number of the class; anything where not ``valid``.
        valid: which pixels count.
    """
    height, width = target.shape[-2:]
    found = []
    for image in range(len(target)):
        pixels = valid[image].flatten().nonzero()[:, 0]
        labels = target[image].flatten()[pixels]
        if len(pixels):
            found.append(
                TrueMasks(
                    image=image, size=(height, width), pixels=pixels, labels=labels,
                    classes=labels.unique(),  # type: ignore[no-untyped-call]
                )
            )  # fmt: skip
    return tuple(found)


def query_losses(
    class_logits: Float[Tensor, "b q k"],
    mask_logits: Float[Tensor, "b q h w"],
    truths: Sequence[TrueMasks],
    *,
    points: int,
    weights: QueryWeights,
    generator: torch.Generator,
) -> dict[str, Float[Tensor, ""]]:
    r"""Return the losses ``class``, ``mask`` and ``dice``, each before its weight.

    ``class`` is the cross-entropy over all queries of images that teach, a query without a mask
    weighted by ``no_object``. ``mask`` is the binary cross-entropy and ``dice`` 1 minus Dice's
    coefficient of each matched mask, both over drawn pixels and the mean over all true masks:

    .. math:: 1 - \frac{2 \sum_i p_i t_i + 1}{\sum_i p_i + \sum_i t_i + 1}

    Without an image that teaches all are 0, with a gradient of 0.

    Args:
        class_logits: of each query; the last one is "no object".
        mask_logits: of each query, on any grid that covers the image.
        truths: of ``true_masks``.
        points: pixels of a mask that are compared; all of them in images with fewer.
        weights: of the losses in the matching.
        generator: draws the pixels; on the device of the logits.
    """
    if not truths:
        nothing = class_logits[:0].sum() + mask_logits[:0].sum()
        return {"class": nothing, "mask": nothing, "dice": nothing}
    wanted = torch.full_like(class_logits[..., 0], class_logits.shape[-1] - 1, dtype=torch.int64)
    mask_sum, dice_sum = [], []
    for truth in truths:
        classes, masks = class_logits[truth.image].float(), mask_logits[truth.image].float()
        with torch.no_grad():
            drawn = _drawn(truth, 1, points, generator)
            logits = at_pixels(masks[None], truth.pixels[drawn], size=truth.size)[0]
            theirs = truth.of(drawn)
            queries = match(matching_cost(classes, logits, truth.classes, theirs, weights))
        wanted[truth.image, queries] = truth.classes
        mask, dice = _of_matched(masks[queries], truth, points=points, generator=generator)
        mask_sum.append(mask.sum())
        dice_sum.append(dice.sum())
    count = sum(len(truth.classes) for truth in truths)
    rows = [truth.image for truth in truths]
    return {
        "class": _of_classes(class_logits[rows].float(), wanted[rows], weights.no_object),
        "mask": torch.stack(mask_sum).sum() / count,
        "dice": torch.stack(dice_sum).sum() / count,
    }


def matching_cost(
    class_logits: Float[Tensor, "q k"],
    mask_logits: Float[Tensor, "q p"],
    classes: Int64[Tensor, " m"],
    truth: Float[Tensor, "m p"],
    weights: QueryWeights,
) -> Float[Tensor, "q m"]:
    """Return what it costs each query to stand for each true mask.

    The weighted sum of minus the probability of the class, the binary cross-entropy of the mask and
    1 minus Dice's coefficient.

    Args:
        class_logits: of each query; the last one is "no object".
        mask_logits: of each query, at some pixels.
        classes: of the true masks.
        truth: 1 where a pixel is of the mask, else 0.
        weights: of the three.
    """
    points = truth.shape[1]
    inside, outside = F.softplus(-mask_logits), F.softplus(mask_logits)
    mask = (inside @ truth.T + outside @ (1.0 - truth).T) / points
    p = mask_logits.sigmoid()
    dice = 1.0 - (2.0 * p @ truth.T + 1.0) / (p.sum(1)[:, None] + truth.sum(1)[None] + 1.0)
    of_class = -class_logits.softmax(dim=1)[:, classes]
    return weights.classes * of_class + weights.mask * mask + weights.dice * dice


def match(cost: Float[Tensor, "q m"]) -> Int64[Tensor, " m"]:
    """Return a query for each true mask, no query twice, at the least cost together.

    Raises:
        ValueError: fewer queries than masks.
    """
    if cost.shape[0] < cost.shape[1]:
        raise ValueError(f"{cost.shape[0]} queries for {cost.shape[1]} masks")
    # What is not finite would end the run here; the training leaves such a step out by itself.
    finite = torch.nan_to_num(cost, nan=_FORBIDDEN, posinf=_FORBIDDEN, neginf=-_FORBIDDEN)
    rows, columns = linear_sum_assignment(finite.double().cpu().numpy())
    return torch.from_numpy(rows[np.argsort(columns)].astype(np.int64)).to(cost.device)


def at_pixels(
    maps: Float[Tensor, "n c h w"], pixels: Int64[Tensor, "n p"], *, size: tuple[int, int]
) -> Float[Tensor, "n c p"]:
    """Return maps at pixels of the image: what their bilinear enlargement holds there.

    Args:
        maps: on any grid that covers the image.
        pixels: numbers of pixels, row by row.
        size: rows and columns of the image.
    """
    height, width = size
    x = (2.0 * (pixels % width) + 1.0) / width - 1.0
    y = (2.0 * (pixels // width) + 1.0) / height - 1.0
    grid = torch.stack([x, y], dim=-1)[:, None].to(maps)
    found = F.grid_sample(maps, grid, mode="bilinear", padding_mode="border", align_corners=False)
    return found[:, :, 0]


def _drawn(
    truth: TrueMasks, rows: int, points: int, generator: torch.Generator
) -> Int64[Tensor, "r p"]:
    """Places among the valid pixels: all of them, or some drawn where there are more."""
    there, device = len(truth.pixels), truth.pixels.device
    if there <= points:
        return torch.arange(there, device=device).expand(rows, -1)
    return torch.randint(there, (rows, points), generator=generator, device=device)


def _of_matched(
    masks: Float[Tensor, "m h w"], truth: TrueMasks, *, points: int, generator: torch.Generator
) -> tuple[Float[Tensor, " m"], Float[Tensor, " m"]]:
    """Cross-entropy and Dice loss of each mask with its own true one."""
    drawn = _hard(masks, truth, points=points, generator=generator)
    logits = at_pixels(masks[:, None], truth.pixels[drawn], size=truth.size)[:, 0]
    theirs = truth.of(drawn)
    mask = F.binary_cross_entropy_with_logits(logits, theirs, reduction="none").mean(dim=1)
    p = logits.sigmoid()
    dice = 1.0 - (2.0 * (p * theirs).sum(1) + 1.0) / (p.sum(1) + theirs.sum(1) + 1.0)
    return mask, dice


@torch.no_grad()
def _hard(
    masks: Float[Tensor, "m h w"], truth: TrueMasks, *, points: int, generator: torch.Generator
) -> Int64[Tensor, "m p"]:
    """Pixels where a mask is unsure, and some others; all of them where there are few."""
    count = len(masks)
    if len(truth.pixels) <= points:
        return _drawn(truth, count, points, generator)
    hard = int(_HARD * points)
    many = torch.randint(
        len(truth.pixels), (count, _OVERSAMPLED * points), generator=generator,
        device=truth.pixels.device,
    )  # fmt: skip
    logits = at_pixels(masks[:, None], truth.pixels[many], size=truth.size)[:, 0]
    unsure = logits.abs().topk(hard, dim=1, largest=False).indices
    return torch.cat(
        [many.gather(1, unsure), _drawn(truth, count, points - hard, generator)], dim=1
    )


def _of_classes(
    logits: Float[Tensor, "i q k"], wanted: Int64[Tensor, "i q"], no_object: float
) -> Float[Tensor, ""]:
    weight = torch.ones(logits.shape[-1], device=logits.device)
    weight[-1] = no_object
    return F.cross_entropy(logits.transpose(1, 2), wanted, weight=weight)
