"""Boxes found in the images of a part beside the true ones, in pixels of the images' files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float

from geodino.data.labelled.resized import ResizedBoxes
from geodino.data.labelled.sets import Boxes
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

    def add_to(self, scorer: DetectionScorer) -> None:
        """Match the boxes and count them."""
        scorer.add(
            self.truth.xyxy.astype(np.float64),
            self.truth.classes,
            self.found.boxes.double().numpy(),
            self.found.classes.numpy(),
            self.found.scores.double().numpy(),
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


def truth_of(source: BoxSource, key: str) -> Boxes:
    """Return the boxes of an image as they are judged, in pixels of its file."""
    native = _native(source)
    label = native.label(key)
    return replace(label, difficult=label.difficult | ~native.on_valid(key, label.xyxy))


def on_own_ground(source: BoxSource, key: str, found: Found) -> Found:
    """Return the boxes on ground of the key's part, in pixels of its file.

    Args:
        source: where the image is read.
        key: of the image.
        found: in pixels as the model sees them.
    """
    boxes = found.boxes.double().numpy() / _factors(source, key)
    keep = torch.from_numpy(_native(source).on_ground(key, boxes))
    return Found(
        boxes=torch.from_numpy(boxes).float()[keep],
        classes=found.classes[keep],
        scores=found.scores[keep],
    )


def _native(source: BoxSource) -> BoxSource:
    """The same images as their files are."""
    made = source.set
    return replace(source, set=made.original) if isinstance(made, ResizedBoxes) else source


def _factors(source: BoxSource, key: str) -> Float[np.ndarray, " 4"]:
    made = source.set
    return made.factors(key) if isinstance(made, ResizedBoxes) else np.ones(4)
