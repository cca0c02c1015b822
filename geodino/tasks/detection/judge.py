"""Boxes found in the images of a part beside the true ones, in pixels of the images' files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from geodino.data.labelled.resized import ResizedBoxes
from geodino.data.labelled.sets import Boxes
from geodino.metrics.boxes import Matches, matches
from geodino.metrics.detection import DetectionScorer
from geodino.models.detection.faster_rcnn import Found
from geodino.tasks.chips import Chips
from geodino.tasks.detection.crops import BoxSource
from geodino.tasks.detection.evaluate import Find, find_in


@dataclass(frozen=True, kw_only=True, slots=True)
class Judged:
    """What was found in an image, and what is there."""

    key: str
    found: Found
    """On ground of the key's part."""

    truth: Boxes
    """Difficult where boxes cannot be judged: on other ground, or on invalid pixels."""

    @property
    def boxes(self) -> Float[np.ndarray, "n 4"]:
        """The found boxes, the surest first."""
        boxes: Float[np.ndarray, "n 4"] = self.found.boxes.double().numpy()
        return boxes

    @property
    def scores(self) -> Float[np.ndarray, " n"]:
        """How sure each is."""
        scores: Float[np.ndarray, " n"] = self.found.scores.double().numpy()
        return scores

    @property
    def counted(self) -> int:
        """True boxes that count."""
        return int((~self.truth.difficult).sum())

    def from_score(self, score: float) -> "Judged":
        """Return the same with the surer boxes alone."""
        keep = self.found.scores >= score
        found = Found(
            boxes=self.found.boxes[keep],
            classes=self.found.classes[keep],
            scores=self.found.scores[keep],
        )
        return replace(self, found=found)

    def matches(self) -> Matches:
        """Return which boxes are right."""
        return matches(
            self.truth.xyxy.astype(np.float64),
            self.truth.classes,
            self.boxes,
            self.found.classes.numpy(),
            difficult=self.truth.difficult,
        )

    def add_to(self, scorer: DetectionScorer) -> None:
        """Match the boxes and count them."""
        scorer.add(
            self.truth.xyxy.astype(np.float64),
            self.truth.classes,
            self.boxes,
            self.found.classes.numpy(),
            self.scores,
            difficult=self.truth.difficult,
        )


def judged(
    find: Find,
    source: BoxSource,
    keys: Sequence[str],
    chips: Chips,
    *,
    iou: float,
    device: torch.device,
) -> Iterator[Judged]:
    """Find the objects of images one after the other, as predictions do.

    Args:
        find: finds objects in chips.
        source: where images and labels are read.
        keys: of the images.
        chips: how images are covered.
        iou: chips say the same object where their boxes overlap by more.
        device: where to find.
    """
    for key in keys:
        found = find_in(
            find, source, key, chip=chips.chip, overlap=chips.overlap, iou=iou, device=device
        )
        yield Judged(key=key, found=on_own_ground(source, key, found), truth=truth_of(source, key))


def native(source: BoxSource) -> BoxSource:
    """Return the same images as their files are, where they are resized."""
    made = source.set
    return replace(source, set=made.original) if isinstance(made, ResizedBoxes) else source


def truth_of(source: BoxSource, key: str) -> Boxes:
    """Return the boxes of an image as they are judged, in pixels of its file."""
    files = native(source)
    label = files.label(key)
    return replace(label, difficult=label.difficult | ~files.on_valid(key, label.xyxy))


def on_own_ground(source: BoxSource, key: str, found: Found) -> Found:
    """Return the boxes on ground of the key's part, in pixels of its file.

    Args:
        source: where the image is read.
        key: of the image.
        found: in pixels as the model sees them.
    """
    boxes = found.boxes.double().numpy() * source.steps(key) / _factors(source, key)
    keep = torch.from_numpy(native(source).on_ground(key, boxes))
    return Found(
        boxes=torch.from_numpy(boxes).float()[keep],
        classes=found.classes[keep],
        scores=found.scores[keep],
    )


def _factors(source: BoxSource, key: str) -> Float[np.ndarray, " 4"]:
    made = source.set
    return made.factors(key) if isinstance(made, ResizedBoxes) else np.ones(4)
