"""Which found boxes of an image are right, and what they are worth from a score on.

Boxes are left, top, right, bottom in pixels from the corner of the first: a box from 0 to 10 is 10
pixels wide (VOC's own code counts 11).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int, Int8

HIT, MISS, UNCOUNTED = 1, 0, -1
"""What a found box is: right, wrong, or neither."""

_VOC_IOU = 0.5


def pairwise_iou(
    one: Float[np.ndarray, "n 4"],
    other: Float[np.ndarray, "m 4"],
    *,
    crowd: Bool[np.ndarray, " m"] | None = None,
) -> Float[np.ndarray, "n m"]:
    """Return the intersection over union of each pair, 0 where that is empty.

    Args:
        one: boxes.
        other: boxes.
        crowd: of which of ``other`` the share of the one box inside it is taken instead.
    """
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    common = np.clip(high - low, 0.0, None).prod(axis=-1, dtype=np.float64)
    own, others = area(one)[:, None], area(other)[None]
    union = own + others - common
    if crowd is not None:
        union = np.where(crowd[None], own, union)
    return np.asarray(np.where(union > 0, common / np.where(union > 0, union, 1.0), 0.0))


def area(xyxy: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, " n"]:
    """Return the area of each box, square pixels."""
    return np.asarray(np.clip(xyxy[:, 2:] - xyxy[:, :2], 0.0, None).prod(axis=-1, dtype=np.float64))


def voc_marks(
    true: Float[np.ndarray, "n 4"], hard: Bool[np.ndarray, " n"], found: Float[np.ndarray, "m 4"]
) -> tuple[Int8[np.ndarray, " m"], Bool[np.ndarray, " n"]]:
    """Match the boxes of one class in an image as PASCAL VOC does, the surest first.

    Each found box belongs to the true one it overlaps most, whether that is taken or not.

    Args:
        true: true boxes.
        hard: which of them are difficult.
        found: found boxes.

    Returns:
        ``HIT``, ``MISS`` or ``UNCOUNTED`` of each found box, and which true ones were found.
    """
    marks = np.full(len(found), MISS, dtype=np.int8)
    taken = np.zeros(len(true), dtype=np.bool_)
    if not len(true) or not len(found):
        return marks, taken
    iou = pairwise_iou(found, true)
    best = iou.argmax(axis=1)
    for i in np.flatnonzero(iou.max(axis=1) >= _VOC_IOU):
        if hard[best[i]]:
            marks[i] = UNCOUNTED
        elif not taken[best[i]]:
            marks[i], taken[best[i]] = HIT, True
    return marks, taken


@dataclass(frozen=True, kw_only=True, slots=True)
class Matches:
    """Which boxes of an image are right, by VOC's rule at IoU .5."""

    right: Bool[np.ndarray, " m"]
    """Found boxes that are the first on a true one."""

    wrong: Bool[np.ndarray, " m"]
    """Found boxes that are not; those on a difficult one are neither."""

    seen: Bool[np.ndarray, " n"]
    """True boxes that were found."""


def matches(
    true_xyxy: Float[np.ndarray, "n 4"],
    true_classes: Int[np.ndarray, " n"],
    found_xyxy: Float[np.ndarray, "m 4"],
    found_classes: Int[np.ndarray, " m"],
    *,
    difficult: Bool[np.ndarray, " n"],
) -> Matches:
    """Match the boxes of one image; found ones come the surest first."""
    marks = np.zeros(len(found_xyxy), dtype=np.int8)
    seen = np.zeros(len(true_xyxy), dtype=np.bool_)
    for number in np.unique(np.concatenate([true_classes, found_classes])).tolist():
        true, said = true_classes == number, found_classes == number
        marks[said], seen[true] = voc_marks(true_xyxy[true], difficult[true], found_xyxy[said])
    return Matches(right=marks == HIT, wrong=marks == MISS, seen=seen)


@dataclass(frozen=True, kw_only=True, slots=True)
class AtScore:
    """What boxes are worth if only the surer ones are taken."""

    score: float
    """Boxes from this score on are taken."""

    precision: float
    """Share of those that are right; NaN where none is taken."""

    recall: float
    """Share of the true boxes that are found; NaN without any."""

    f1: float
    """Harmonic mean of both."""


def at_score(
    scores: Float[np.ndarray, " m"], found: Matches, *, truths: int, score: float | None = None
) -> AtScore | None:
    """Judge the boxes from a score on.

    Args:
        scores: of all found boxes.
        found: which of them are right; ``seen`` is not looked at.
        truths: true boxes that count.
        score: from where on; None takes the one with the highest F1.

    Returns:
        None where no score is given, and no box is right.
    """
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    right, wrong = found.right[order].cumsum(), found.wrong[order].cumsum()
    said = right + wrong
    f1 = 2 * right / np.maximum(said + truths, 1)
    if score is None:
        if not found.right.any():
            return None
        # Boxes of one score are taken together.
        last = np.append(ordered[1:] != ordered[:-1], True)
        score = float(ordered[np.where(last, f1, -1.0).argmax()])
    taken = int((scores >= score).sum())
    hits, all_said = (int(n[taken - 1]) if taken else 0 for n in (right, said))
    nan = float("nan")
    return AtScore(
        score=score,
        precision=hits / all_said if all_said else nan,
        recall=hits / truths if truths else nan,
        f1=float(f1[taken - 1]) if taken else 0.0,
    )
