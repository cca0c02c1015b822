import numpy as np
import pytest
import torch
from boxes_support import coco_json
from PIL import Image

from geodino.data.labelled.coco import open_coco
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.io.raster import HandlePool
from geodino.metrics.detection import DetectionScorer
from geodino.models.detection.faster_rcnn import Found
from geodino.tasks.chips import Chips
from geodino.tasks.detection.crops import BoxSource, find_places
from geodino.tasks.detection.evaluate import find_in, random_boxes
from geodino.tasks.detection.judge import judged

CONTRACT = InputContract(
    bands=tuple(Band(name=n) for n in ("red", "green", "blue")),
    dtype="uint8", mean=(90.0,) * 3, std=(40.0,) * 3, low=(0.0,) * 3, high=(255.0,) * 3,
)  # fmt: skip

BOXES = [(5, 5, 8, 6), (26, 20, 10, 10), (48, 30, 7, 7)]
"""Left, top, width, height; each is painted in a value of its own."""


@pytest.fixture
def source(tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    for value, (x, y, w, h) in enumerate(BOXES, start=100):
        pixels[y : y + h, x : x + w] = value
    Image.fromarray(pixels).save(tmp_path / "a.png")
    labels = coco_json(tmp_path / "train.json", [(1, "a.png")], [(1, 3, box) for box in BOXES])
    with HandlePool() as pool:
        found = open_coco(tmp_path, {"train": labels}, pool=pool)
        yield BoxSource(set=found, contract=CONTRACT, bands=(0, 1, 2))


def by_value(image, valid):
    """Finds each painted box, surer the more of it is seen."""
    boxes, scores = [], []
    for value in (100, 101, 102):
        rows, columns = torch.where(image[0, 0] == value)
        if len(rows):
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
            scores.append(len(rows) / 200)
    return [
        Found(
            boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            classes=torch.zeros(len(boxes), dtype=torch.int64),
            scores=torch.tensor(scores, dtype=torch.float32),
        )
    ]


@pytest.mark.parametrize("chip", [64, 32, 24])
def test_a_finder_that_sees_everything_scores_1_whatever_the_chips(source, chip):
    found = find_in(
        by_value, source, "train/a.png", chip=chip, overlap=12, iou=0.3, device=torch.device("cpu")
    )
    assert sorted(found.boxes.int().tolist()) == [
        [x, y, x + w, y + h] for x, y, w, h in sorted(BOXES)
    ]
    chips, scorer = Chips(chip=chip, overlap=12), DetectionScorer(2)
    for one in judged(
        by_value, source, ["train/a.png"], chips, iou=0.3, device=torch.device("cpu")
    ):
        one.add_to(scorer)
    scores = scorer.scores()
    assert scores.ap50 == scores.coco_ap == 1.0


def test_random_boxes_are_as_many_and_as_large_as_the_training_ones(source):
    places = find_places(source, threads=1)
    one, again = (
        random_boxes(places, "train/a.png", (80, 60), classes=2, seed=0) for _ in range(2)
    )
    assert torch.equal(one.boxes, again.boxes)
    assert len(one.boxes) == 6  # twice the ground, twice the boxes
    sides = {(round(x1 - x0), round(y1 - y0)) for x0, y0, x1, y1 in one.boxes.tolist()}
    assert sides <= {(w, h) for _, _, w, h in BOXES}
    assert bool((one.boxes >= 0).all())
    assert bool((one.boxes <= torch.tensor([60.0, 80, 60, 80])).all())
    other = random_boxes(places, "train/b.png", (80, 60), classes=2, seed=0)
    assert not torch.equal(one.boxes, other.boxes)
