"""Boxes are judged on ground of their own part, on valid pixels, in pixels of the files."""

from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
import torch

from geodino.data.labelled.boxes import in_window, made_boxes
from geodino.data.labelled.resized import ResizedBoxes
from geodino.data.labelled.sets import SetFacts
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.metrics.detection import DetectionScorer
from geodino.models.detection.faster_rcnn import Found
from geodino.tasks.chips import Chips
from geodino.tasks.detection.crops import BoxFeed, BoxSamplingConfig, BoxSource, find_places
from geodino.tasks.detection.judge import judged

CPU = torch.device("cpu")
BANDS = tuple(Band(name=n) for n in ("red", "green", "blue"))
CONTRACT = InputContract(
    bands=BANDS, dtype="uint8", mean=(90.0,) * 3, std=(40.0,) * 3, low=(0.0,) * 3,
    high=(255.0,) * 3,
)  # fmt: skip
BOXES = np.array([[4, 4, 10, 10], [20, 4, 26, 10], [44, 4, 50, 10]], dtype=np.float64)
"""The second one lies on invalid pixels, the third one on ground of another part."""


@dataclass(frozen=True)
class Halves:
    """One image, whose right half is of another part."""

    facts = SetFacts(
        name="halves", kind="detection", classes=("thing",), bands=BANDS, dtype="uint8",
        metric="map50",
    )  # fmt: skip
    parts = MappingProxyType({"train": ("train/a",), "val": ("val/a",)})
    fingerprint = "f"

    def size(self, key):
        return 32, 64

    def image(self, key, window=None):
        pixels = np.full((3, 32, 64), 50, np.uint8)
        for x0, y0, x1, y1 in BOXES.astype(int):
            pixels[:, y0:y1, x0:x1] = 200
        valid = np.ones((3, 32, 64), bool)
        valid[:, :, 18:28] = False
        rows, columns = window.slices if window else (slice(None), slice(None))
        return pixels[:, rows, columns], valid[:, rows, columns]

    def label(self, key, window=None):
        mine = self.on_ground(key, BOXES)
        return in_window(made_boxes(BOXES, [0, 0, 0], (~mine).tolist()), window)

    def traits(self, key):
        return {}

    def outline(self, key):
        return None

    def ground(self, key, window):
        left = np.broadcast_to(np.arange(64) < 32, (32, 64))[window.slices]
        return left if key.startswith("train") else ~left

    def on_ground(self, key, xyxy):
        left = (xyxy[:, 0] + xyxy[:, 2]) / 2 < 32
        return left if key.startswith("train") else ~left


def everywhere(image, valid):
    """Finds something at each box, and at a place where nothing is, in both halves."""
    scale = image.shape[-1] / 64
    extra = np.array([[4, 20, 10, 26], [44, 20, 50, 26]])
    boxes = torch.from_numpy(np.concatenate([BOXES, extra]) * scale).float()
    count = len(boxes)
    return [
        Found(
            boxes=boxes,
            classes=torch.zeros(count, dtype=torch.int64),
            scores=torch.linspace(0.9, 0.5, count),
        )
    ]


def source(**more):
    return BoxSource(set=Halves(**more), contract=CONTRACT, bands=(0, 1, 2))


def test_boxes_on_ground_of_other_parts_are_neither_right_nor_wrong():
    whole = Chips(chip=64, overlap=0)
    (one,) = judged(everywhere, source(), ["train/a"], whole, iou=0.5, device=CPU)
    assert one.truth.difficult.tolist() == [False, True, True]
    assert one.counted == 1
    found = one.matches()
    # Of its own half: a right one, one on an invalid object, and one on nothing.
    assert found.right.tolist() == [True, False, False]
    assert found.wrong.tolist() == [False, False, True]
    scorer = DetectionScorer(1)
    one.add_to(scorer)
    assert scorer.scores().truths.tolist() == [1]
    assert len(one.from_score(0.85).scores) == 1


def test_a_resized_picture_is_judged_in_pixels_of_its_file():
    small = source()
    large = replace(small, set=ResizedBoxes(small.set, 128))
    whole = Chips(chip=128, overlap=0)
    (one,) = judged(everywhere, large, ["train/a"], whole, iou=0.5, device=CPU)
    np.testing.assert_allclose(one.boxes[0], BOXES[0], atol=1e-5)
    np.testing.assert_allclose(one.truth.xyxy, BOXES)
    assert one.truth.difficult[1]


def test_crops_say_which_ground_may_be_learnt():
    places = find_places(source(), threads=1)
    assert places.centre.tolist() == [[7.0, 7.0], [7.0, 23.0]]
    config = BoxSamplingConfig(crop=64, augment="none", around=0.0)
    (batch,) = BoxFeed(source(), places, config, seed=0, batch=1, threads=1).batches(0, 1)
    assert batch.ground[0, :32].any(dim=0).tolist() == [True] * 32 + [False] * 32
    assert not batch.ground[0, 32:].any()  # filled up
    assert bool(batch.valid[0, :32, 40:].all())  # seen, not learnt
