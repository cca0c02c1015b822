import numpy as np
import pytest
import torch
from boxes_support import coco_json
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from geodino.data.labelled.coco import open_coco
from geodino.errors import SourceError
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.io.raster import HandlePool
from geodino.tasks.augment import Move
from geodino.tasks.detection.crops import BoxFeed, BoxSamplingConfig, BoxSource, find_places

CONTRACT = InputContract(
    bands=tuple(Band(name=n) for n in ("red", "green", "blue")),
    dtype="uint8", mean=(90.0,) * 3, std=(40.0,) * 3, low=(0.0,) * 3, high=(255.0,) * 3,
)  # fmt: skip

BOXES = [(5, 5, 8, 6), (40, 20, 10, 12), (30, 2, 4, 4)]
"""Left, top, width, height; the image is bright in them and dark elsewhere."""


@pytest.fixture
def source(tmp_path):
    pixels = np.zeros((40, 60, 3), np.uint8)
    for x, y, w, h in BOXES:
        pixels[y : y + h, x : x + w] = 200
    for name in ("a.png", "b.png"):
        Image.fromarray(pixels if name == "a.png" else pixels * 0).save(tmp_path / name)
    rows = [(1, 3, box) for box in BOXES]
    files = {
        "train": coco_json(tmp_path / "train.json", [(1, "a.png"), (2, "b.png")], rows),
        "val": coco_json(tmp_path / "val.json", [(2, "b.png")], []),
    }
    with HandlePool() as pool:
        found = open_coco(tmp_path, files, pool=pool)
        yield BoxSource(set=found, contract=CONTRACT, bands=(0, 1, 2))


def feed(source, **settings):
    places = find_places(source, threads=1)
    config = BoxSamplingConfig(crop=32, **settings)
    return BoxFeed(source, places, config, seed=1, batch=3, threads=2)


@pytest.mark.parametrize("augment", ["none", "flips", "turns"])
def test_boxes_lie_where_the_bright_pixels_are(source, augment):
    for batch in feed(source, augment=augment, around=1.0).batches(0, 6):
        for pixels, objects in zip(batch.pixels, batch.objects, strict=True):
            painted = torch.zeros(32, 32)
            for x0, y0, x1, y1 in objects.boxes.int().tolist():
                painted[y0:y1, x0:x1] = 1
            # Slivers of objects are bright without a box; no box holds a dark pixel.
            assert len(objects.boxes)
            assert bool((pixels[0][painted > 0] == 200).all())


def test_a_resumed_run_goes_on_with_the_same_crops(source):
    whole = list(feed(source, augment="turns").batches(0, 4))
    rest = list(feed(source, augment="turns").batches(2, 4))
    for one, other in zip(whole[2:], rest, strict=True):
        assert one.step == other.step
        assert torch.equal(one.pixels, other.pixels)
        assert all(
            torch.equal(a.boxes, b.boxes) for a, b in zip(one.objects, other.objects, strict=True)
        )


def test_small_images_are_filled_up_with_invalid_pixels(source):
    places = find_places(source, threads=1)
    config = BoxSamplingConfig(crop=64, augment="none")
    (batch,) = BoxFeed(source, places, config, seed=0, batch=1, threads=1).batches(0, 1)
    assert batch.pixels.shape == (1, 3, 64, 64)
    assert bool(batch.valid[0, :40, :60].all())
    assert batch.valid.sum() == 40 * 60


@given(st.booleans(), st.booleans(), st.booleans(), st.integers(0, 10), st.integers(0, 10))
def test_boxes_turn_with_the_pixels(down, across, quarter, left, top):
    move = Move(down, across, quarter)
    image = np.zeros((16, 16), np.uint8)
    image[top : top + 3, left : left + 5] = 1
    box = np.array([[left, top, left + 5, top + 3]], np.float32)
    ((x0, y0, x1, y1),) = move.boxes(box, 16).astype(int).tolist()
    turned = move.pixels(image)
    assert turned[y0:y1, x0:x1].all()
    assert turned.sum() == (x1 - x0) * (y1 - y0) == 15


def test_a_part_without_an_object_cannot_be_learnt_from(source):
    with pytest.raises(SourceError, match="No image for training holds an object"):
        find_places(source, threads=1, parts=("val",))
    with pytest.raises(SourceError, match="no image to learn from"):
        find_places(source, threads=1, parts=("test",))
