"""Images are drawn in passes or by class, smoothed truth, and statistics that take values in."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from classification_support import write_folders, write_table
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.data.labelled.held_out import HeldOut
from geodino.data.labelled.image_folder import find_suite
from geodino.data.labelled.yaml_set import open_yaml
from geodino.evals.meeting import Meeting
from geodino.evals.problems import labels_of
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.models.build import build_backbone
from geodino.models.classification import ClassificationConfig, build_classification
from geodino.models.sizes import ModelConfig
from geodino.runs.finetune.classification.prepare import as_stored
from geodino.tasks.classification.batch import ImageBatch
from geodino.tasks.classification.config import ImageLossConfig, ImageSamplingConfig
from geodino.tasks.classification.feed import ImageFeed
from geodino.tasks.classification.objective import ImageObjective
from geodino.tasks.classification.source import ImageSource


def seen(image):
    pixels, valid = image
    return pixels.astype(np.float32), valid.all(axis=0)


def source_of(data):
    labels = {part: np.asarray(labels_of(data, part)) for part in data.parts}
    return ImageSource(set=data, seen=seen, image_size=None, patch_size=8, labels=labels)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return source_of(find_suite(write_folders(tmp_path_factory.mktemp("set"), each=5)))


def drawn(source, config, *, steps, first=0, seed=0):
    feed = ImageFeed(source, config, seed=seed, batch=4, threads=1)
    return list(feed.batches(first, steps))


def test_a_pass_sees_every_image_once_and_the_next_in_another_order(folders):
    config = ImageSamplingConfig(augment="none")
    found = drawn(folders, config, steps=5)
    means = [round(float(p.mean()), 4) for batch in found for p in batch.pixels]
    whole = sorted(round(float(folders.read(key)[0].mean()), 4) for key in folders.keys("train"))
    assert len(whole) == 9
    assert sorted(means[:9]) == sorted(means[9:18]) == whole
    assert means[:9] != means[9:18]


def test_a_feed_that_begins_in_the_middle_draws_the_same(folders):
    config = ImageSamplingConfig(balance=0.5)
    for one, other in zip(
        drawn(folders, config, steps=4)[2:], drawn(folders, config, steps=4, first=2), strict=True
    ):
        assert torch.equal(one.pixels, other.pixels)
        assert torch.equal(one.labels, other.labels)


def test_images_drawn_by_class_are_of_each_class_alike(tmp_path):
    folders = write_folders(tmp_path / "set", each=30)
    for number in range(4, 30):
        (folders / f"sand/{number}.png").unlink()
    source = source_of(find_suite(folders))
    counts = source.counts("train")
    assert counts.tolist() == [21, 3, 21]
    batches = drawn(source, ImageSamplingConfig(balance=1.0), steps=30)
    labels = torch.cat([batch.labels for batch in batches])
    # 120 draws of 3 classes: 40 of each, give or take four deviations of 5.2.
    assert all(abs(int(n) - 40) < 21 for n in torch.bincount(labels))


def test_an_image_of_several_classes_is_drawn_for_any_of_them(tmp_path):
    source = source_of(open_yaml(write_table(tmp_path / "set")))
    (batch,) = drawn(source, ImageSamplingConfig(balance=1.0), steps=1)
    assert batch.labels.shape == (4, 3)
    assert batch.labels.dtype == torch.bool
    assert source.counts("train").tolist() == source.labels["train"].sum(axis=0).tolist()


def test_what_is_held_out_for_validation_is_taken_from_training_alone(tmp_path):
    whole = find_suite(write_folders(tmp_path / "set", each=5))
    held = np.arange(len(whole.parts["train"])) % 4 == 0
    data = HeldOut(whole, held)
    assert set(data.parts["train"]) | set(data.parts["val"]) == set(whole.parts["train"])
    assert not set(data.parts["train"]) & set(data.parts["val"])
    assert data.parts["test"] == whole.parts["test"]
    assert data.fingerprint != HeldOut(whole, ~held).fingerprint != whole.fingerprint


CONTRACT = InputContract(
    bands=(Band(name="a"), Band(name="b")), dtype="uint16", mean=(10.0, 20.0), std=(2.0, 4.0),
    low=(0.0, 0.0), high=(30.0, 40.0),
)  # fmt: skip
numbers = st.floats(0.01, 100.0)


@settings(max_examples=30)
@given(scale=st.tuples(numbers, numbers), shift=st.tuples(numbers, numbers))
def test_statistics_take_in_what_would_be_done_to_the_values(scale, shift):
    met = Meeting(
        contract=CONTRACT, positions=(1, 0), adapted=None,
        scale=np.array(scale, dtype=np.float32), shift=np.array(shift, dtype=np.float32),
        clipped=False, words="",
    )  # fmt: skip
    facts = replace(open_facts(), bands=(Band(name="x"), Band(name="y")), dtype="float32")
    stored = as_stored(met, facts)
    values = np.array([3.0, 7.0])
    asked = (values * met.scale + met.shift - CONTRACT.mean) / CONTRACT.std
    ours = (values - stored.contract.mean) / stored.contract.std
    np.testing.assert_allclose(ours, asked, rtol=1e-4, atol=1e-4)
    assert stored.contract.band_names == ("y", "x")
    assert (stored.scale == 1).all()


def open_facts():
    from geodino.data.labelled.generated import open_mini

    return open_mini("mini-cover").facts


@pytest.fixture(scope="module")
def model():
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(name="vit_nano", patch_size=8, dim=32, depth=2, heads=2, layer_scale=1.0)
    backbone = build_backbone(config, CONTRACT, generator=generator).eval()
    return build_classification(
        backbone, ClassificationConfig(), classes=3, kind="classification", image_size=16,
        generator=generator,
    ).eval()  # fmt: skip


def batch_of(labels):
    pixels = torch.rand(2, 2, 16, 16, generator=torch.Generator().manual_seed(1)) * 30
    return ImageBatch(
        step=0, pixels=pixels, valid=torch.ones(2, 16, 16, dtype=torch.bool), labels=labels
    )


def test_smoothed_truth_is_spread_over_all_classes_or_over_yes_and_no(model):
    one = batch_of(torch.tensor([0, 2]))
    logits = model(one.pixels, one.valid)
    truth = torch.tensor([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]])  # 0.7 + 0.3 / 3, and 0.3 / 3
    expected = -(truth * logits.log_softmax(dim=1)).sum(dim=1).mean()
    found = ImageObjective(ImageLossConfig(label_smoothing=0.3))(model, one)
    torch.testing.assert_close(found["total"], expected)
    many = batch_of(torch.tensor([[True, False, True], [False, False, True]]))
    truth = many.labels.float() * 0.7 + 0.15
    sure = logits.sigmoid()
    expected = -(truth * sure.log() + (1 - truth) * (1 - sure).log()).mean()
    found = ImageObjective(ImageLossConfig(label_smoothing=0.3))(model, many)
    torch.testing.assert_close(found["total"], expected)


def test_what_lies_under_invalid_pixels_changes_no_probability(model):
    pixels = torch.full((1, 2, 20, 24), 12.0)
    valid = torch.ones(1, 20, 24, dtype=torch.bool)
    valid[:, :7, :9] = False
    other = pixels.masked_fill(~valid[:, None], 999.0)
    with torch.no_grad():
        assert torch.equal(model.probabilities(pixels, valid), model.probabilities(other, valid))
        assert model.probabilities(pixels).sum() == pytest.approx(1.0)
