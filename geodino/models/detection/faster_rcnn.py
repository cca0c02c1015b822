"""Objects as boxes: Faster R-CNN (Ren et al. 2015) on a pyramid of a backbone's features."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor

from geodino.errors import RunError
from geodino.models.backbone import Backbone, Tokens
from geodino.models.canopy import pad
from geodino.models.detection.coding import anchors, clipped, decode, encode
from geodino.models.detection.head import CELLS, DetectionConfig, DetectionHead
from geodino.models.detection.matching import OBJECT, Objects, matched, on_valid, sampled
from geodino.models.detection.ops import box_areas, nms, roi_align
from geodino.models.headed import HeadedModel

_PROPOSAL_WEIGHTS, _BOX_WEIGHTS = (1.0, 1.0), (10.0, 5.0)
_BETA = 1 / 9
"""Where the loss of boxes turns from quadratic to linear."""

_LEAST_SIDE = 1e-2
_CANONICAL = (224.0, 2)
"""Boxes of this side are read from the map of this number (Lin et al. 2017, equation 1)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """The boxes found in an image, the surest first."""

    boxes: Float[Tensor, "n 4"]
    """Left, top, right, bottom in pixels; inside the image."""

    classes: Int64[Tensor, " n"]
    scores: Float[Tensor, " n"]
    """Probability of the class, 0 to 1."""


class DetectionModel(HeadedModel):
    """Stored pixel values in, boxes out.

    Images of any size are padded at the right and bottom with invalid pixels. Boxes whose centre
    lies on an invalid pixel are neither learnt from nor found.

    Args:
        backbone: with its weights.
        config: the head; its weights are unset until ``init_head`` or a state dict sets them.
        classes: how many.

    Attributes:
        backbone: of any family.
        head: finds boxes.
        multiple: sides are padded to a multiple of this, pixels.
    """

    head: DetectionHead

    def __init__(self, backbone: Backbone, config: DetectionConfig, *, classes: int) -> None:
        super().__init__(backbone)
        self.config = config
        self.classes = classes
        self.head = DetectionHead(backbone, config, classes=classes)
        self.multiple = math.lcm(backbone.patch_size, self.head.pyramid.strides[-2])

    def init_head(self, generator: torch.Generator) -> None:
        """Draw the head's weights."""
        self.head.init_weights(generator)

    def maps(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None
    ) -> list[Tensor]:
        """Return the maps of the pyramid, of the padded image."""
        padded, inside = pad(image, valid, multiple=self.multiple)
        layers = [tap.layer for tap in self.head.pyramid.taps]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            tokens: list[Tokens] = self.backbone.tap(padded, layers, inside, norm=True)
        maps: list[Tensor] = self.head.pyramid(tokens)
        return maps

    def forward(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None = None
    ) -> list[Found]:
        """Find the objects of each image.

        Args:
            image: stored values, as the backbone's contract says.
            valid: True where a pixel may be used; None uses all.

        Raises:
            ContractError: another number of bands than the backbone was built for.
            RunError: values that are not finite.
        """
        usable = _every(image) if valid is None else valid
        size = (image.shape[-2], image.shape[-1])
        maps = self.maps(image, valid)
        starts = self._anchors(maps)
        first = self.head.proposed(maps)
        proposals = self._proposals(first, starts, usable, size)
        logits, codes = self.head.told(self._features(maps, proposals))
        # No box is likelier than a number that is none: without this, nothing would be found.
        if not all(one.isfinite().all() for one in (*chain(*first), logits, codes)):
            raise RunError(
                "The model gives values that are not finite: its weights hold NaN or infinity, or "
                "the pixels overflow. Check the checkpoint and the range of the values."
            )
        ends = _ends(proposals)
        return [
            self._said(what.float().softmax(dim=-1), decode_all(where, boxes), inside)
            for what, where, boxes, inside in zip(
                logits.tensor_split(ends), codes.tensor_split(ends), proposals, usable, strict=True
            )
        ]

    def losses(
        self,
        image: Num[Tensor, "b c h w"],
        valid: Bool[Tensor, "b h w"],
        objects: Sequence[Objects],
        *,
        generator: torch.Generator,
        ground: Bool[Tensor, "b h w"] | None = None,
    ) -> dict[str, Tensor]:
        """Return the four losses of a batch, and their sum ``total``.

        Args:
            image: stored values.
            valid: True where a pixel may be used.
            objects: of each image.
            generator: on the CPU; draws which boxes are learnt from.
            ground: True where boxes may be learnt, by their centres; None: everywhere. Pixels
                elsewhere are seen.
        """
        size = (image.shape[-2], image.shape[-1])
        maps = self.maps(image, valid)
        valid = valid if ground is None else valid & ground
        starts = self._anchors(maps)
        first = self.head.proposed(maps)
        logits = torch.cat([one for one, _ in first], dim=1).float()
        codes = torch.cat([one for _, one in first], dim=1).float()
        losses = self._first_losses(logits, codes, torch.cat(starts), valid, objects, generator)
        with torch.no_grad():
            proposals = self._proposals(first, starts, valid, size)
        losses |= self._second_losses(maps, proposals, valid, objects, generator)
        return {**losses, "total": torch.stack(list(losses.values())).sum()}

    def _first_losses(
        self,
        logits: Float[Tensor, "b a"],
        codes: Float[Tensor, "b a 4"],
        starts: Float[Tensor, "a 4"],
        valid: Bool[Tensor, "b h w"],
        objects: Sequence[Objects],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        said, true, shifts = [], [], []
        for i, own in enumerate(objects):
            kind, about = matched(
                starts, own, on_valid(starts, valid[i]), high=0.7, low=0.3, each_object=True
            )
            rows = sampled(kind, count=self.config.drawn_anchors, objects=0.5, generator=generator)
            said.append(logits[i, rows])
            true.append((kind[rows] == OBJECT).float())
            rows = rows[kind[rows] == OBJECT]
            target = encode(own.boxes[about[rows]], starts[rows], weights=_PROPOSAL_WEIGHTS)
            shifts.append(_off(codes[i, rows], target))
        count = max(sum(len(one) for one in said), 1)
        cls = F.binary_cross_entropy_with_logits(torch.cat(said), torch.cat(true), reduction="sum")
        return {"rpn_cls": cls / count, "rpn_box": torch.stack(shifts).sum() / count}

    def _second_losses(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        valid: Bool[Tensor, "b h w"],
        objects: Sequence[Objects],
        generator: torch.Generator,
    ) -> dict[str, Tensor]:
        boxes, classes, targets = [], [], []
        for i, own in enumerate(objects):
            # True boxes are proposals as well: early on no other comes near an object.
            every = torch.cat([proposals[i], own.boxes[~own.difficult]])
            kind, about = matched(
                every, own, on_valid(every, valid[i]), high=0.5, low=0.5, each_object=False
            )
            rows = sampled(
                kind, count=self.config.drawn_proposals, objects=0.25, generator=generator
            )
            is_object = kind[rows] == OBJECT
            number = torch.zeros_like(rows)
            number[is_object] = own.classes[about[rows[is_object]]] + 1
            target = torch.zeros_like(every[rows])
            target[is_object] = own.boxes[about[rows[is_object]]]
            boxes.append(every[rows])
            classes.append(number)
            targets.append(target)
        logits, codes = self.head.told(self._features(maps, boxes))
        number, around = torch.cat(classes), torch.cat(boxes)
        count = max(len(number), 1)
        (rows,) = torch.where(number > 0)
        target = encode(torch.cat(targets)[rows], around[rows], weights=_BOX_WEIGHTS)
        said = codes[rows, number[rows] - 1].float()
        cls = F.cross_entropy(logits.float(), number, reduction="sum")
        return {"roi_cls": cls / count, "roi_box": _off(said, target) / count}

    def _anchors(self, maps: Sequence[Tensor]) -> list[Tensor]:
        config = self.config
        return [
            anchors(
                x.shape[-2], x.shape[-1], stride=stride, side=config.anchor_scale * stride,
                ratios=config.anchor_ratios,
            ).to(x.device)
            for x, stride in zip(maps, self.head.pyramid.strides, strict=True)
        ]  # fmt: skip

    @torch.no_grad()
    def _proposals(
        self,
        first: Sequence[tuple[Tensor, Tensor]],
        starts: Sequence[Tensor],
        valid: Bool[Tensor, "b h w"],
        size: tuple[int, int],
    ) -> list[Tensor]:
        """The boxes of each image that are looked at closely."""
        made = []
        for i, inside in enumerate(valid):
            boxes, scores, levels = [], [], []
            for level, ((logits, codes), start) in enumerate(zip(first, starts, strict=True)):
                best = logits[i].float().topk(min(self.config.proposals, logits.shape[1]))
                rows = best.indices
                found = decode(codes[i, rows].float(), start[rows], weights=_PROPOSAL_WEIGHTS)
                boxes.append(clipped(found, size))
                scores.append(best.values)
                levels.append(torch.full_like(rows, level))
            every, score, group = (torch.cat(one) for one in (boxes, scores, levels))
            keep = _has_area(every) & on_valid(every, inside)
            every, score, group = every[keep], score[keep], group[keep]
            rows = nms(every, score, group, iou=self.config.proposal_iou)
            made.append(every[rows[: self.config.proposals]])
        return made

    def _features(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        """The features in each box, from the map that fits its size; image by image."""
        side, number = _CANONICAL
        every = torch.cat(list(boxes))
        level = torch.log2(box_areas(every).clamp_min(1e-6).sqrt() / side + 1e-8) + number
        level = level.floor().clamp(0, len(maps) - 2).to(torch.int64)
        made = maps[0].new_zeros(len(every), maps[0].shape[1], CELLS, CELLS)
        ends = _ends(boxes)
        for i, x in enumerate(maps[:-1]):
            here = level == i
            own = [b[h] for b, h in zip(boxes, here.tensor_split(ends), strict=True)]
            read = roi_align(x, own, size=CELLS, stride=self.head.pyramid.strides[i])
            made = made.index_put((torch.where(here)[0],), read.to(made.dtype))
        return made

    def _said(
        self,
        shares: Float[Tensor, "n c"],
        boxes: Float[Tensor, "n k 4"],
        valid: Bool[Tensor, "h w"],
    ) -> Found:
        boxes = clipped(boxes, (valid.shape[0], valid.shape[1]))
        rows, classes = torch.where(shares[:, 1:] > self.config.least_score)
        every, scores = boxes[rows, classes], shares[rows, classes + 1]
        keep = _has_area(every) & on_valid(every, valid)
        every, scores, classes = every[keep], scores[keep], classes[keep]
        best = nms(every, scores, classes, iou=self.config.box_iou)[: self.config.most_boxes]
        return Found(boxes=every[best], classes=classes[best], scores=scores[best])


def build_detection(
    backbone: Backbone,
    config: DetectionConfig,
    *,
    classes: int,
    generator: torch.Generator,
    frozen: bool = True,
) -> DetectionModel:
    """Put a fresh head on a backbone.

    Args:
        backbone: with its weights.
        config: the head.
        classes: how many.
        generator: the head's weights depend on its state alone.
        frozen: the backbone does not learn.

    Raises:
        RecipeError: the head does not fit the backbone.
    """
    model = DetectionModel(backbone, config, classes=classes)
    model.init_head(generator)
    if frozen:
        model.freeze()
    return model


def decode_all(codes: Float[Tensor, "n k 4"], boxes: Float[Tensor, "n 4"]) -> Tensor:
    """Return the box of each proposal for each class ``[n k 4]``."""
    return decode(codes.float(), boxes[:, None].expand_as(codes), weights=_BOX_WEIGHTS)


def _ends(boxes: Sequence[Tensor]) -> list[int]:
    """Where the rows of each image end, but for the last."""
    return list(accumulate(len(one) for one in boxes))[:-1]


def _every(image: Num[Tensor, "b c h w"]) -> Bool[Tensor, "b h w"]:
    return torch.ones_like(image[:, 0], dtype=torch.bool)


def _off(said: Tensor, target: Tensor) -> Tensor:
    return F.smooth_l1_loss(said, target, beta=_BETA, reduction="sum")


def _has_area(boxes: Float[Tensor, "n 4"]) -> Bool[Tensor, " n"]:
    return ((boxes[:, 2:] - boxes[:, :2]) > _LEAST_SIDE).all(dim=-1)
