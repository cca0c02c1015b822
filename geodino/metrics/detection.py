"""Scores of boxes: AP50 as PASCAL VOC defines it, and the AP of COCO.

Both match found boxes with true ones of their class, the surest first, and integrate precision
over recall; they differ in what may match what, and in how they integrate. Boxes are left, top,
right, bottom in pixels from the corner of the first: a box from 0 to 10 is 10 pixels wide (VOC's
own code counts 11).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

from geodino.metrics.bootstrap import Interval, interval, resampled_rows
from geodino.metrics.boxes import HIT, MISS, UNCOUNTED, area, pairwise_iou, voc_marks

IOU_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))
"""Of COCO's AP: .50, .55, ..., .95."""

AREAS = MappingProxyType(
    {
        "all": (0.0, 1e10),
        "small": (0.0, 32.0**2),
        "medium": (32.0**2, 96.0**2),
        "large": (96.0**2, 1e10),
    }
)
"""Smallest and largest area of COCO's sizes, square pixels, both ends included."""

MAX_FOUND = 100
"""Most boxes of a class in an image that COCO looks at, the surest ones."""

_RECALLS = np.linspace(0.0, 1.0, 101)
_ALMOST_ONE = 1.0 - 1e-10


@dataclass(frozen=True, kw_only=True, slots=True)
class DetectionScores:
    """What found boxes are worth; NaN where no true box counts."""

    ap50: float
    """VOC: mean over classes of the area under the envelope of precision over recall, IoU .5."""

    ap50_by_class: Float[np.ndarray, " k"]
    """The same of each class; NaN where it has no true box."""

    coco_ap_by_class: Float[np.ndarray, " k"]
    """COCO's AP of each class; NaN where it has no true box."""

    coco_ap: float
    """COCO: mean over classes and IoUs .50 to .95 of precision at 101 recalls."""

    coco_ap50: float
    """COCO at IoU .5. It differs from ``ap50`` by the rules for matches and the 101 recalls."""

    coco_ap75: float
    """COCO at IoU .75."""

    coco_ap_small: float
    """COCO of true boxes up to 32 x 32 pixels."""

    coco_ap_medium: float
    """COCO of true boxes between 32 x 32 and 96 x 96 pixels."""

    coco_ap_large: float
    """COCO of true boxes from 96 x 96 pixels on."""

    truths: Int[np.ndarray, " k"]
    """True boxes that count, of each class."""


@dataclass(kw_only=True)
class _OfClass:
    """What was found of one class, image by image."""

    image: list[Int[np.ndarray, " m"]] = field(default_factory=list)
    score: list[Float[np.ndarray, " m"]] = field(default_factory=list)
    voc: list[Int8[np.ndarray, " m"]] = field(default_factory=list)
    coco: list[Int8[np.ndarray, "a t m"]] = field(default_factory=list)
    counted: list[Int[np.ndarray, " c"]] = field(default_factory=list)
    """Of each image: true boxes that count for VOC, and for each of COCO's areas."""


class DetectionScorer:
    """Found boxes against true ones, added up image by image.

    Args:
        classes: how many.
        max_found: most boxes of a class in an image that COCO's AP looks at; VOC's looks at all.
    """

    def __init__(self, classes: int, *, max_found: int = MAX_FOUND) -> None:
        self.images = 0
        self._max = max_found
        self._of = [_OfClass() for _ in range(classes)]

    def add(
        self,
        true_xyxy: Float[np.ndarray, "n 4"],
        true_classes: Int[np.ndarray, " n"],
        found_xyxy: Float[np.ndarray, "m 4"],
        found_classes: Int[np.ndarray, " m"],
        scores: Float[np.ndarray, " m"],
        *,
        difficult: Bool[np.ndarray, " n"] | None = None,
    ) -> None:
        """Match the boxes of one image.

        Args:
            true_xyxy: true boxes.
            true_classes: their classes.
            found_xyxy: found boxes, in any order; of equal scores the first comes first.
            found_classes: their classes.
            scores: how sure each is.
            difficult: true boxes that need not be found: what matches one counts neither as right
                nor as wrong. For COCO they are crowds: any number of boxes may lie in one.

        Raises:
            ValueError: a class that does not exist, or a score that is no number.
        """
        for what, given in (("true", true_classes), ("found", found_classes)):
            if given.size and not 0 <= given.min() <= given.max() < len(self._of):
                raise ValueError(f"a {what} class lies outside 0 to {len(self._of) - 1}")
        if not np.isfinite(scores).all():
            raise ValueError("a score is no finite number")
        if difficult is None:
            difficult = np.zeros(len(true_xyxy), dtype=np.bool_)
        order = np.argsort(-scores, kind="stable")
        found_xyxy, found_classes, scores = found_xyxy[order], found_classes[order], scores[order]
        for number, of in enumerate(self._of):
            true, said = true_classes == number, found_classes == number
            hard, boxes, found = difficult[true], true_xyxy[true], found_xyxy[said]
            coco, counted = _coco(boxes, hard, found, max_found=self._max)
            of.image.append(np.full(len(found), self.images))
            of.score.append(scores[said])
            of.voc.append(voc_marks(boxes, hard, found)[0])
            of.coco.append(coco)
            of.counted.append(np.array([(~hard).sum(), *counted]))
        self.images += 1

    def scores(self) -> DetectionScores:
        """Return the scores of everything added so far.

        Raises:
            ValueError: nothing was added.
        """
        if not self.images:
            raise ValueError("there is no image to score")
        weights = np.ones((1, self.images))
        ap50 = np.array([_voc_ap(_Sorted.of(one), weights)[0] for one in self._of])
        # class, area, IoU
        coco = np.stack([_coco_ap(_Sorted.of(one), weights)[0] for one in self._of])
        by_area = dict(zip(AREAS, coco.swapaxes(0, 1), strict=True))
        return DetectionScores(
            ap50=_mean(ap50),
            ap50_by_class=ap50,
            coco_ap_by_class=by_area["all"].mean(axis=1),
            coco_ap=_mean(by_area["all"]),
            coco_ap50=_mean(by_area["all"][:, IOU_THRESHOLDS.index(0.5)]),
            coco_ap75=_mean(by_area["all"][:, IOU_THRESHOLDS.index(0.75)]),
            coco_ap_small=_mean(by_area["small"]),
            coco_ap_medium=_mean(by_area["medium"]),
            coco_ap_large=_mean(by_area["large"]),
            truths=np.array([sum(int(n[0]) for n in of.counted) for of in self._of]),
        )

    def intervals(
        self,
        *,
        generator: np.random.Generator,
        minus: "DetectionScorer | None" = None,
        resamples: int = 1000,
        level: float = 0.95,
    ) -> dict[str, Interval]:
        """Return ``ap50`` and ``coco_ap`` with their percentile bootstrap intervals over images.

        A resample in which a class has no true box leaves that class out of its mean.

        Args:
            generator: draws the resamples.
            minus: what other boxes of the same images are worth: the difference is scored, the same
                images drawn for both.
            resamples: how many times to draw.
            level: coverage of the intervals.

        Raises:
            ValueError: ``minus`` is of other images.
        """
        sides = [self] if minus is None else [self, minus]
        if any(side.images != self.images for side in sides):
            raise ValueError(f"{[side.images for side in sides]} images cannot be compared")
        found = [[_Sorted.of(one) for one in side._of] for side in sides]

        def drawn(weights: Float[np.ndarray, "r i"]) -> dict[str, Float[np.ndarray, " r"]]:
            first, *rest = (_resampled(one, weights) for one in found)
            return {name: first[name] - rest[0][name] if rest else first[name] for name in first}

        value = drawn(np.ones((1, self.images)))
        parts = [
            # How often each image was drawn: matches are made within images, so they stay.
            drawn(np.stack([np.bincount(row, minlength=self.images) for row in rows]).astype(float))
            for rows in resampled_rows(self.images, resamples, generator)
        ]
        return {
            name: interval(float(one[0]), [part[name] for part in parts], level)
            for name, one in value.items()
        }


def _coco(
    true: Float[np.ndarray, "n 4"],
    hard: Bool[np.ndarray, " n"],
    found: Float[np.ndarray, "m 4"],
    *,
    max_found: int,
) -> tuple[Int8[np.ndarray, "a t m"], Int[np.ndarray, " a"]]:
    """Each found box takes the free true one it overlaps most; one that counts before others."""
    limits = np.array(list(AREAS.values()))
    sizes, own = area(true), area(found)
    ignored = hard | (sizes < limits[:, :1]) | (sizes > limits[:, 1:])  # area, true
    outside = (own < limits[:, :1]) | (own > limits[:, 1:])  # area, found
    marks = np.broadcast_to(
        np.where(outside, UNCOUNTED, MISS)[:, None], (len(limits), len(IOU_THRESHOLDS), len(own))
    ).astype(np.int8)
    marks[..., max_found:] = UNCOUNTED
    counted = (~ignored).sum(axis=1)
    if not len(true) or not len(found):
        return marks, counted
    iou = pairwise_iou(found, true, crowd=hard)
    least = np.minimum(np.array(IOU_THRESHOLDS), _ALMOST_ONE)
    free = np.ones((len(limits), len(least), len(true)), dtype=np.bool_)
    areas, steps = np.meshgrid(np.arange(len(limits)), np.arange(len(least)), indexing="ij")
    for i in np.flatnonzero(iou[:max_found].max(axis=1, initial=0.0) >= least[0]):
        may = (free | hard) & (iou[i] >= least[:, None])
        counts = may & ~ignored[:, None]
        may = np.where(counts.any(axis=-1, keepdims=True), counts, may)
        # Of equal overlaps the last one is taken, as COCO's own loop does.
        value = np.where(may, iou[i], -1.0)
        best = len(true) - 1 - value[..., ::-1].argmax(axis=-1)
        hit = may.any(axis=-1)
        free[areas[hit], steps[hit], best[hit]] = False
        gone = ignored[areas, best]
        marks[..., i] = np.where(hit, np.where(gone, UNCOUNTED, HIT), marks[..., i])
    return marks, counted


@dataclass(frozen=True, kw_only=True, slots=True)
class _Sorted:
    """What was found of one class in all images, the surest first."""

    image: Int[np.ndarray, " m"]
    voc: Int8[np.ndarray, " m"]
    coco: Int8[np.ndarray, "a t m"]
    counted: Int[np.ndarray, "i c"]

    @classmethod
    def of(cls, one: _OfClass) -> "_Sorted":
        order = np.argsort(-np.concatenate(one.score), kind="stable")
        return cls(
            image=np.concatenate(one.image)[order],
            voc=np.concatenate(one.voc)[order],
            coco=np.concatenate(one.coco, axis=-1)[..., order],
            counted=np.stack(one.counted),
        )


def _voc_ap(found: _Sorted, weights: Float[np.ndarray, "r i"]) -> Float[np.ndarray, " r"]:
    """Area under the envelope, each image counted ``weights`` times."""
    truths = weights @ found.counted[:, 0]
    each = weights[:, found.image]
    hits = each * (found.voc == HIT)
    right = hits.cumsum(axis=1)
    said = right + (each * (found.voc == MISS)).cumsum(axis=1)
    envelope = _envelope(right / np.where(said > 0, said, 1.0))
    some = truths > 0
    return np.where(some, (hits * envelope).sum(axis=1) / np.where(some, truths, 1.0), np.nan)


def _coco_ap(
    found: _Sorted, weights: Float[np.ndarray, "r i"], *, areas: int = len(AREAS)
) -> Float[np.ndarray, "r a t"]:
    """Mean precision at 101 recalls, of the first areas and each IoU; images counted as above."""
    made = np.full((len(weights), areas, len(IOU_THRESHOLDS)), np.nan)
    truths = weights @ found.counted[:, 1:]
    each = weights[:, found.image]
    for a in range(areas):
        some = truths[:, a] > 0
        if not some.any():
            continue
        total = truths[some, a, None]
        for t in range(len(IOU_THRESHOLDS)):
            marks = found.coco[a, t]
            counted = marks != UNCOUNTED
            kept = each[np.ix_(some, counted)]
            right = (kept * (marks[counted] == HIT)).cumsum(axis=1)
            said = kept.cumsum(axis=1)
            envelope = _envelope(right / np.where(said > 0, said, 1.0))
            # How many of the recalls are reached by each box: each is read where it is first.
            reached = np.searchsorted(_RECALLS, right / total, side="right")
            first = np.diff(reached, axis=1, prepend=0)
            made[some, a, t] = (envelope * first).sum(axis=1) / len(_RECALLS)
    return made


def _resampled(
    found: Sequence[_Sorted], weights: Float[np.ndarray, "r i"]
) -> dict[str, Float[np.ndarray, " r"]]:
    """The mean over classes of both scores, each image counted ``weights`` times."""
    coco = [_coco_ap(one, weights, areas=1)[:, 0].mean(axis=-1) for one in found]
    return {
        "ap50": _means(np.stack([_voc_ap(one, weights) for one in found])),
        "coco_ap": _means(np.stack(coco)),
    }


def _envelope(precision: Float[np.ndarray, "r m"]) -> Float[np.ndarray, "r m"]:
    """The best precision at this or any greater recall."""
    return np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]


def _mean(values: Float[np.ndarray, "*a"]) -> float:
    """Mean over what is known; NaN where nothing is."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def _means(by_class: Float[np.ndarray, "k r"]) -> Float[np.ndarray, " r"]:
    known = ~np.isnan(by_class)
    total, count = np.nansum(by_class, axis=0), known.sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
