import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.models.detection.coding import anchors, clipped, decode, encode
from geodino.models.detection.faster_rcnn import build_detection
from geodino.models.detection.head import DetectionConfig
from geodino.models.detection.matching import (
    BACKGROUND,
    OBJECT,
    UNUSED,
    Objects,
    matched,
    on_valid,
    sampled,
)
from geodino.models.detection.ops import box_iou

SMALL = DetectionConfig(
    channels=16, hidden=32, anchor_scale=4.0, proposals=50, drawn_anchors=32, drawn_proposals=32
)


def objects(*rows, difficult=None, classes=None):
    return Objects(
        boxes=torch.tensor(rows, dtype=torch.float32).reshape(-1, 4),
        classes=torch.tensor(classes or [0] * len(rows), dtype=torch.int64),
        difficult=torch.tensor(difficult or [False] * len(rows), dtype=torch.bool),
    )


def test_anchors_stand_around_the_centres_of_cells_with_one_area():
    # A map of 1 x 2 cells of 4 pixels; a square of 8 and one four times as high as wide.
    found = anchors(1, 2, stride=4, side=8.0, ratios=(1.0, 4.0))
    expected = [[-2, -2, 6, 6], [0, -6, 4, 10], [2, -2, 10, 6], [4, -6, 8, 10]]
    assert found.tolist() == expected


BOX = st.tuples(*[st.floats(-50, 50, width=32)] * 2, *[st.floats(1, 60, width=32)] * 2)


@settings(max_examples=40)
@given(BOX, BOX)
def test_what_is_encoded_is_decoded(one, other):
    boxes, around = (
        torch.tensor([[x, y, x + w, y + h]], dtype=torch.float32) for x, y, w, h in (one, other)
    )
    codes = encode(boxes, around, weights=(10.0, 5.0))
    again = decode(codes, around, weights=(10.0, 5.0))
    torch.testing.assert_close(again, boxes, rtol=1e-3, atol=1e-2)


def test_a_box_twice_as_wide_and_shifted_by_half_of_itself():
    codes = encode(
        torch.tensor([[0.0, 0, 20, 10]]), torch.tensor([[0.0, 0, 10, 10]]), weights=(1.0, 1.0)
    )
    torch.testing.assert_close(codes, torch.tensor([[0.5, 0.0, math.log(2), 0.0]]))


def test_what_lies_outside_is_cut_off():
    assert clipped(torch.tensor([[-5.0, 2, 30, 90]]), (40, 20)).tolist() == [[0, 2, 20, 40]]


def test_boxes_learn_by_how_much_they_overlap():
    # IoU 1, 1/2 and 0 with the object.
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [50, 50, 60, 60]])
    kind, about = matched(
        boxes, objects((0, 0, 10, 10)), torch.ones(3, dtype=torch.bool),
        high=0.7, low=0.3, each_object=True,
    )  # fmt: skip
    assert kind.tolist() == [OBJECT, UNUSED, BACKGROUND]
    assert about.tolist() == [0, 0, 0]


def test_an_object_that_no_box_fits_is_learnt_by_the_nearest():
    boxes = torch.tensor([[0.0, 0, 10, 5], [0, 0, 10, 2], [50, 50, 60, 60]])
    args = boxes, objects((0, 0, 10, 10)), torch.ones(3, dtype=torch.bool)
    kind, _ = matched(*args, high=0.7, low=0.3, each_object=True)
    assert kind.tolist() == [OBJECT, BACKGROUND, BACKGROUND]
    kind, _ = matched(*args, high=0.7, low=0.3, each_object=False)
    assert kind.tolist() == [UNUSED, BACKGROUND, BACKGROUND]


def test_difficult_objects_and_invalid_ground_teach_nothing():
    boxes = torch.tensor([[0.0, 0, 10, 10], [50, 50, 60, 60], [80, 80, 90, 90]])
    kind, _ = matched(
        boxes, objects((0, 0, 12, 12), difficult=[True]), torch.tensor([True, False, True]),
        high=0.7, low=0.3, each_object=True,
    )  # fmt: skip
    assert kind.tolist() == [UNUSED, UNUSED, BACKGROUND]


def test_the_draw_keeps_to_its_share_and_depends_on_the_generator_alone():
    kind = torch.tensor([OBJECT] * 10 + [BACKGROUND] * 50 + [UNUSED] * 5)
    rows = [
        sampled(kind, count=16, objects=0.25, generator=torch.Generator().manual_seed(3))
        for _ in range(2)
    ]
    assert rows[0].tolist() == rows[1].tolist()
    assert len(rows[0]) == 16
    assert (kind[rows[0]] == OBJECT).sum() == 4
    assert len(set(rows[0].tolist())) == 16


def test_a_box_counts_as_valid_by_its_centre():
    valid = torch.zeros(4, 4, dtype=torch.bool)
    valid[1, 2] = True
    boxes = torch.tensor([[2.0, 1, 3, 2], [0, 0, 4, 4], [2, 0, 8, 3]])
    # Centres: column 2.5, row 1.5; column 2, row 2; column 5 is outside.
    assert on_valid(boxes, valid).tolist() == [True, False, False]


@pytest.fixture
def model_for(backbone_for):
    def make(name="vit_nano", seed=0, **settings):
        config = SMALL.model_copy(update=settings)
        generator = torch.Generator().manual_seed(seed)
        return build_detection(backbone_for(name=name), config, classes=2, generator=generator)

    return make


def scene(noise):
    """Two bright squares of two sizes on noise, and what they are."""
    image = 100 + 20 * noise(1, 3, 96, 80)
    image[..., 10:30, 20:40] = 250.0
    image[..., 60:92, 30:62] = 10.0
    return image, objects((20, 10, 40, 30), (30, 60, 62, 92), classes=[0, 1])


def test_losses_teach_the_head_alone_and_the_same_draw_gives_the_same(model_for, noise):
    model = model_for().train()
    image, truth = scene(noise)
    valid = torch.ones(1, 96, 80, dtype=torch.bool)

    def losses():
        return model.losses(image, valid, [truth], generator=torch.Generator().manual_seed(5))

    found = losses()
    assert set(found) == {"rpn_cls", "rpn_box", "roi_cls", "roi_box", "total"}
    parts = sum(value for name, value in found.items() if name != "total")
    torch.testing.assert_close(found["total"], parts)
    found["total"].backward()
    # What is coarser than any object of the image is in no box, yet every map proposes.
    assert all(p.grad is not None for p in model.head.parameters())
    assert all(p.grad is None for p in model.backbone.parameters())
    assert {k: v.item() for k, v in losses().items()} == {k: v.item() for k, v in found.items()}


@pytest.mark.parametrize("truth", [objects(), objects((0, 0, 9, 9), difficult=[True])])
def test_an_image_with_nothing_to_find_has_finite_losses(model_for, noise, truth):
    model = model_for().train()
    found = model.losses(
        noise(1, 3, 64, 64), torch.ones(1, 64, 64, dtype=torch.bool), [truth],
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    assert found["rpn_box"] == found["roi_box"] == 0.0
    assert torch.isfinite(found["total"])
    found["total"].backward()


def test_values_of_invalid_pixels_change_nothing_and_no_box_is_centred_there(model_for, noise):
    model = model_for(least_score=0.0).eval()
    image, _ = scene(noise)
    valid = torch.ones(1, 96, 80, dtype=torch.bool)
    valid[:, :50, :40] = False
    found = []
    for fill in (0.0, math.nan):
        filled = torch.where(valid[:, None], image, fill)
        with torch.no_grad():
            found.append(model(filled, valid)[0])
    assert len(found[0].boxes)
    assert torch.equal(found[0].boxes, found[1].boxes)
    assert torch.equal(found[0].scores, found[1].scores)
    assert bool(on_valid(found[0].boxes, valid[0]).all())
    nothing, _ = model(torch.cat([image, image]), torch.zeros(2, 96, 80, dtype=torch.bool))
    assert len(nothing.boxes) == 0


@pytest.mark.parametrize("name", ["vit_nano", "convnext_atto"])
def test_boxes_are_sorted_inside_the_image_and_one_of_a_batch_stands_alone(model_for, noise, name):
    model = model_for(name, least_score=0.0).eval()
    image = 100 + 30 * noise(2, 3, 70, 50)  # no multiple of anything
    with torch.no_grad():
        both, (alone,) = model(image), model(image[1:])
    for found in both:
        assert bool((found.boxes >= 0).all())
        assert bool((found.boxes[:, 2] <= 50).all())
        assert bool((found.boxes[:, 3] <= 70).all())
        assert bool((found.scores.diff() <= 0).all())
    torch.testing.assert_close(both[1].scores, alone.scores, rtol=1e-4, atol=1e-5)


def test_two_squares_are_learnt_by_heart(model_for, noise):
    model = model_for().train()
    image, truth = scene(noise)
    valid = torch.ones(1, 96, 80, dtype=torch.bool)
    optimiser = torch.optim.AdamW(model.head.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(80):
        optimiser.zero_grad()
        model.losses(image, valid, [truth], generator=generator)["total"].backward()
        optimiser.step()
    with torch.no_grad():
        (found,) = model.eval()(image)
    assert found.classes[:2].sort().values.tolist() == [0, 1]
    order = found.classes[:2].argsort()
    iou = box_iou(found.boxes[:2][order], truth.boxes).diagonal()
    assert iou.min() > 0.75
    assert bool((found.scores[:2] > 0.5).all())
