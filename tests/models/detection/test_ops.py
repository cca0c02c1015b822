import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.models.detection import ops


def slow_nms(boxes, scores, groups, iou):
    """Take the surest box, drop what it overlaps, and so on."""
    left = sorted(range(len(boxes)), key=lambda i: -scores[i].item())
    kept = []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [
            i
            for i in left
            if groups[i] != groups[best]
            or not ops.box_iou(boxes[best : best + 1], boxes[i : i + 1])[0, 0] > iou
        ]
    return kept


def drawn(n, *, seed=0, groups=2):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(n, 2, generator=generator) * 40
    side = 5 + torch.rand(n, 2, generator=generator) * 15
    scores = (torch.rand(n, generator=generator) * 20).round() / 20  # many are equal
    group = torch.randint(0, groups, (n,), generator=generator)
    return torch.cat([corner, corner + side], dim=1), scores, group


@settings(max_examples=30)
@given(st.integers(0, 40), st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.7]))
def test_suppression_agrees_with_its_slow_definition(n, seed, iou):
    boxes, scores, groups = drawn(n, seed=seed)
    found = ops.nms(boxes, scores, groups, iou=iou)
    assert found.tolist() == slow_nms(boxes, scores, groups, iou)


def test_many_boxes_are_suppressed_block_by_block_as_at_once(monkeypatch):
    boxes, scores, groups = drawn(60)
    at_once = ops.nms(boxes, scores, groups, iou=0.4)
    monkeypatch.setattr(ops, "_ROWS_AT_ONCE", 7)
    assert ops.nms(boxes, scores, groups, iou=0.4).tolist() == at_once.tolist()


def test_a_chain_of_overlaps_keeps_every_other_box():
    # Each overlaps the next by 1/3: the second goes, so the third stays.
    boxes = torch.tensor([[5.0 * i, 0, 5.0 * i + 10, 10] for i in range(5)])
    scores = torch.tensor([0.9, 0.8, 0.7, 0.6, 0.5])
    kept = ops.nms(boxes, scores, torch.zeros(5, dtype=torch.int64), iou=0.3)
    assert kept.tolist() == [0, 2, 4]


def test_boxes_without_area_overlap_nothing():
    flat = torch.tensor([[1.0, 1, 1, 5], [1, 1, 1, 5]])
    assert ops.box_iou(flat, flat).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def slow_roi_align(image, box, *, size, stride, samples):
    """One box of one image, reading by reading."""
    height, width = image.shape[-2:]

    def value(y, x):
        if not (-1 <= y <= height and -1 <= x <= width):
            return torch.zeros(len(image))
        y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
        top, left = int(y), int(x)
        bottom, right = min(top + 1, height - 1), min(left + 1, width - 1)
        dy, dx = y - top, x - left
        return (1 - dy) * ((1 - dx) * image[:, top, left] + dx * image[:, top, right]) + dy * (
            (1 - dx) * image[:, bottom, left] + dx * image[:, bottom, right]
        )

    x0, y0, x1, y1 = (v / stride - 0.5 for v in box)
    made = torch.zeros(len(image), size, size)
    for i in range(size):
        for j in range(size):
            for k in range(samples):
                for n in range(samples):
                    y = y0 + (i + (k + 0.5) / samples) * (y1 - y0) / size
                    x = x0 + (j + (n + 0.5) / samples) * (x1 - x0) / size
                    made[:, i, j] += value(y, x) / samples**2
    return made


def test_features_of_boxes_agree_with_their_slow_definition():
    features = torch.randn(2, 3, 6, 7, generator=torch.Generator().manual_seed(0))
    # Inside, over the edge, and mostly outside of an image of 24 x 28 pixels.
    boxes = [[2.0, 3.0, 17.0, 20.0], [-3.0, 10.0, 9.0, 24.0], [20.0, 15.0, 45.0, 40.0]]
    found = ops.roi_align(
        features, [torch.tensor(boxes[:2]), torch.tensor(boxes[2:])], size=3, stride=4
    )
    expected = [
        slow_roi_align(features[i], box, size=3, stride=4, samples=2)
        for i, box in zip((0, 0, 1), boxes, strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(expected), rtol=1e-4, atol=1e-5)


def test_an_image_without_boxes_gives_none():
    features = torch.randn(2, 3, 4, 4)
    boxes = [torch.zeros(0, 4), torch.tensor([[0.0, 0, 8, 8]])]
    assert ops.roi_align(features, boxes, size=2, stride=4).shape == (1, 3, 2, 2)


@pytest.mark.skipif(not ops.compiled_ops(), reason="torchvision's compiled operators do not load")
def test_torchvision_finds_the_same():
    import torchvision

    boxes, scores, groups = drawn(200)
    expected = ops._compiled(boxes, scores, groups, iou=0.5)
    assert ops.nms(boxes, scores, groups, iou=0.5).tolist() == expected.tolist()
    features = torch.randn(1, 3, 12, 12)
    aligned = torchvision.ops.roi_align(features, [boxes], 7, 0.25, 2, aligned=True)
    torch.testing.assert_close(
        ops.roi_align(features, [boxes], size=7, stride=4), aligned, rtol=1e-4, atol=1e-4
    )


@given(st.booleans(), st.booleans())
def test_mirroring_twice_changes_nothing(across, down):
    boxes, _, _ = drawn(5)
    kwargs = {"height": 50.0, "width": 70.0, "across": across, "down": down}
    twice = ops.flipped(ops.flipped(boxes, **kwargs), **kwargs)
    torch.testing.assert_close(twice, boxes)
    once = ops.flipped(boxes, **kwargs)
    assert bool((once[:, 2:] > once[:, :2]).all())
