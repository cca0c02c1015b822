"""Crops by class, scores by hand, floors, and what validation sees."""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from heights_support import RGB

from geodino.data.labelled.sets import IGNORED, SetFacts
from geodino.errors import SourceError
from geodino.geo.bands import Band
from geodino.geo.windows import Window
from geodino.losses.segmentation import dice_loss, pixel_cross_entropy
from geodino.models.segmentation import SegmentationModel
from geodino.tasks.chips import Chips
from geodino.tasks.segmentation.batch import ClassBatch
from geodino.tasks.segmentation.config import ClassLossConfig, ClassSamplingConfig
from geodino.tasks.segmentation.crops import ClassFeed, find_windows
from geodino.tasks.segmentation.evaluate import Cell, cells_of, judged
from geodino.tasks.segmentation.floors import band_features, fit_floors
from geodino.tasks.segmentation.objective import ClassObjective
from geodino.tasks.segmentation.scores import (
    ImageConfusions,
    by_class,
    intervals,
)
from geodino.tasks.segmentation.source import ClassSource
from geodino.tasks.source import bands_in

FACTS = SetFacts(
    name="squares", kind="segmentation", classes=("dark", "bright", "rare"), metric="miou",
    bands=tuple(Band(name=n, common_name=n) for n in ("red", "green", "blue")), dtype="uint8",
)  # fmt: skip


class Squares:
    """Images whose first row, first column and brightness tell which class a pixel is."""

    facts = FACTS
    fingerprint = "none"

    def __init__(self, *, images=4, side=64):
        self.parts = {"train": tuple(f"train/{i}" for i in range(images)), "val": ("val/9",)}
        self.side = side

    def whole(self, key):
        number = int(key.partition("/")[2])
        label = np.zeros((self.side, self.side), np.uint8)
        label[:, self.side // 2 :] = 1
        if number == 1:
            label[:4, :4] = 2
        label[-8:] = IGNORED
        return label

    def size(self, key):
        return self.side, self.side

    def image(self, key, window=None):
        window = window or Window(0, 0, self.side, self.side)
        label = self.whole(key)[window.slices]
        value = np.where(label == 1, 200, np.where(label == 2, 120, 30)).astype(np.uint8)
        pixels = np.stack([value, value, value])
        return pixels, np.broadcast_to(np.True_, pixels.shape)

    def label(self, key, window=None):
        return self.whole(key)[(window or Window(0, 0, self.side, self.side)).slices]

    def traits(self, key):
        return {}

    def outline(self, key):
        return None


def source(**more):
    return ClassSource(set=Squares(**more), contract=RGB, bands=(0, 1, 2))


def feed_of(src, config, *, seed=0, batch=2):
    windows = find_windows(src, config, crop=config.crop, seed=seed, threads=1)
    return windows, ClassFeed(src, windows, config, seed=seed, batch=batch, threads=1)


def test_windows_are_counted_and_classes_weighed_by_their_median_frequency():
    windows, _ = feed_of(source(), ClassSamplingConfig(crop=32))
    assert len(windows) == 16
    np.testing.assert_array_equal(windows.frequency, [4 * 56 * 32 - 16, 4 * 56 * 32, 16])
    dark, bright, rare = windows.weights()
    assert bright == pytest.approx((4 * 56 * 32 - 16) / (4 * 56 * 32))
    assert dark == 1.0
    assert rare == 10.0


def test_the_same_step_has_the_same_crops_wherever_a_run_begins():
    _, feed = feed_of(source(), ClassSamplingConfig(crop=32, balance=0.5, augment="turns"))
    straight = list(feed.batches(0, 4))
    later = list(feed.batches(2, 4))
    for one, other in zip(straight[2:], later, strict=True):
        assert one.step == other.step
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.classes, other.classes)


@pytest.mark.parametrize("augment", ["none", "flips", "turns"])
def test_image_and_classes_are_moved_together(augment):
    _, feed = feed_of(source(), ClassSamplingConfig(crop=32, augment=augment))
    for batch in feed.batches(0, 6):
        bright = batch.pixels[:, 0] == 200
        assert torch.equal(bright[batch.known], (batch.classes == 1)[batch.known])
        assert (batch.classes[~batch.known] == IGNORED).all()


def test_a_rare_class_is_drawn_as_often_as_others_where_that_is_asked():
    def share(balance):
        config = ClassSamplingConfig(crop=16, balance=balance, augment="none")
        _, feed = feed_of(source(images=8), config, batch=1)
        return np.mean([bool((b.classes == 2).any()) for b in feed.batches(0, 60)])

    assert share(0.0) < 0.1
    assert share(1.0) > 0.2


def test_small_images_are_filled_up_with_what_does_not_count():
    _, feed = feed_of(source(side=40), ClassSamplingConfig(crop=64))
    (batch,) = feed.batches(0, 1)
    assert batch.pixels.shape == (2, 3, 64, 64)
    assert (~batch.valid).sum() == 2 * (64 * 64 - 40 * 40)
    assert not (batch.known & ~batch.valid).any()


def test_windows_without_labels_are_never_drawn_and_none_at_all_is_a_sentence():
    config = ClassSamplingConfig(crop=16, min_label_share=1.0, augment="none")
    _, feed = feed_of(source(), config)
    assert all(batch.known.all() for batch in feed.batches(0, 10))

    class Bare(Squares):
        def whole(self, key):
            return np.full((self.side, self.side), IGNORED, np.uint8)

    bare = ClassSource(set=Bare(), contract=RGB, bands=(0, 1, 2))
    with pytest.raises(SourceError, match="No window of 16 px holds enough labels"):
        find_windows(bare, config, crop=16, seed=0, threads=1)


def test_a_census_looks_at_some_windows_and_any_may_be_drawn():
    windows, feed = feed_of(source(images=8), ClassSamplingConfig(crop=16, census=20))
    assert len(windows) == 8 * 16
    assert len(windows.looked_at) + len(windows.empty) == 20
    assert len(list(feed.batches(0, 5))) == 5


def test_the_objective_adds_dice_with_its_weight_and_leaves_invalid_pixels_out():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 3, 4, 4, generator=generator)
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    valid[0, 0] = False
    batch = ClassBatch(
        step=0, pixels=torch.zeros(1, 3, 4, 4), valid=valid,
        classes=torch.randint(0, 3, (1, 4, 4), generator=generator),
        known=torch.ones(1, 4, 4, dtype=torch.bool),
    )  # fmt: skip

    expected = pixel_cross_entropy(logits, batch.classes, valid) + 0.5 * dice_loss(
        logits, batch.classes, valid
    )
    found = _losses(ClassObjective(ClassLossConfig(dice=0.5)), logits, batch)
    torch.testing.assert_close(found["total"], expected)
    assert set(found) == {"total", "cross_entropy", "dice"}
    assert set(_losses(ClassObjective(ClassLossConfig(kind="focal")), logits, batch)) == {
        "total", "focal",
    }  # fmt: skip


def _losses(objective, logits, batch):
    class Said(SegmentationModel):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.head = torch.nn.Identity()  # brings no loss of its own

        def forward(self, image, valid=None):
            return logits

    return objective(Said(), batch)


def test_pixels_without_a_prediction_do_not_count_and_classes_are_scored_by_hand():
    labels = np.array([[0, 0, 1, 1], [2, 2, 255, 1]], dtype=np.uint8)
    predicted = np.array([[0, 1, 1, 1], [2, 0, 0, 255]], dtype=np.uint8)
    found = ImageConfusions(4)
    found.add("a", labels, predicted)
    assert found.whole.tolist() == [[1, 1, 0, 0], [0, 2, 0, 0], [1, 0, 1, 0], [0, 0, 0, 0]]
    scores = intervals(found.stacked, background=None, seed=0)
    assert scores["miou"].value == pytest.approx((1 / 3 + 2 / 3 + 1 / 2) / 3)
    assert scores["pixel_accuracy"].value == pytest.approx(4 / 6)
    without = intervals(found.stacked, background=0, seed=0)
    assert without["miou"].value == pytest.approx((2 / 3 + 1 / 2) / 2)
    rows = by_class(found.whole, ("a", "b", "c", "d"))
    assert rows["b"] == {"iou": pytest.approx(2 / 3), "precision": pytest.approx(2 / 3),
                         "recall": 1.0, "pixels": 2}  # fmt: skip
    assert math.isnan(rows["d"]["recall"])


def test_intervals_are_over_images_and_differences_are_paired():
    found = ImageConfusions(2)
    for image, right in (("a", 8), ("b", 4), ("c", 6)):
        truth = np.zeros(10, np.uint8)
        predicted = np.array([0] * right + [1] * (10 - right), np.uint8)
        found.add(image, truth, predicted)
    scores = intervals(found.stacked, background=None, seed=0)
    assert scores["pixel_accuracy"].value == pytest.approx(0.6)
    assert scores["pixel_accuracy"].low < 0.6 < scores["pixel_accuracy"].high
    same = intervals(found.stacked, background=None, seed=0, minus=found.stacked)
    assert (same["miou"].value, same["miou"].low, same["miou"].high) == (0, 0, 0)
    one = intervals(found.stacked[:1], background=None, seed=0)
    assert math.isnan(one["miou"].low)


class Bright:
    """Says bright where the first band is above 100."""

    channels, stride, align, device = 3, 1, 8, torch.device("cpu")

    def __call__(self, pixels, valid):
        is_bright = (pixels[:, :1] > 100).float()
        return torch.cat([1 - is_bright, is_bright, torch.zeros_like(is_bright)], dim=1)


def test_whole_images_are_judged_as_maps_are_made():
    src = source()
    cells = cells_of(src, "val")
    assert cells == (Cell(key="val/9", window=Window(0, 0, 64, 64)),)
    with ThreadPoolExecutor(1) as threads:
        (one,) = judged(src, cells, Bright(), Chips(chip=32, overlap=8), threads=threads)
    counted = one.truth != IGNORED
    np.testing.assert_array_equal(one.predicted[counted], one.truth[counted])


def test_floors_are_the_most_frequent_class_and_what_bands_tell():
    src = source()
    windows, _ = feed_of(src, ClassSamplingConfig(crop=32))
    floors = fit_floors(src, windows, pixels=400, seed=0, threads=1)
    assert floors.majority == 1
    guess = floors.by_bands(Cell(key="val/9", window=Window(0, 0, 56, 64)))
    truth = src.label("val/9", Window(0, 0, 56, 64))
    assert (guess == truth).mean() > 0.95
    assert (
        fit_floors(src, windows, pixels=0, seed=0, threads=1).by_bands(cells_of(src, "val")[0])
        is None
    )


def test_features_of_bands_are_the_value_and_mean_and_deviation_around_it():
    pixels = np.zeros((1, 20, 20), np.uint8)
    pixels[0, :, 10:] = 100
    valid = np.ones((20, 20), dtype=bool)
    value, mean, deviation = band_features(pixels, valid, mean=[50.0], std=[50.0])
    assert (value[0, 0], value[0, 15]) == (-1.0, 1.0)
    assert (mean[10, 4], mean[10, 15]) == (-1.0, 1.0)
    assert mean[10, 9] == pytest.approx((5 * -1 + 4 * 1) / 9, abs=1e-5)
    assert deviation[10, 9] == pytest.approx(math.sqrt(1 - (1 / 9) ** 2), abs=1e-4)


def test_bands_are_found_by_name_else_by_place():
    assert bands_in(("red", "green", "blue", "nir"), ("nir", "red")) == (3, 0)
    assert bands_in(("band_1", "band_2"), ("red", "green")) == (0, 1)
    assert bands_in(("a", "b"), ("red", "green", "blue")) is None
