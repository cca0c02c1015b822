"""Antialiased resizing of boxes: torchvision's numbers, by every road, blind to invalid pixels."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from geodino.data import resample
from geodino.data.resample import keep, make_taps, resized_crops

MODES = {"bicubic": InterpolationMode.BICUBIC, "bilinear": InterpolationMode.BILINEAR}


def chips(b=2, c=3, h=40, w=50, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (torch.rand(b, c, h, w, generator=generator) * 200).to(dtype)


def crops_of(pixels, boxes, *, size, valid=None, mirrored=None, interpolation="bicubic"):
    """All crops (crops * b, c, size, size), whatever parts they come in."""
    boxes = torch.tensor(boxes)
    if mirrored is None:
        mirrored = torch.zeros(*boxes.shape[:2], 2, dtype=torch.bool)
    out = {}
    complete = torch.zeros(len(pixels), dtype=torch.bool)
    for rows, crops in resized_crops(
        pixels, valid, boxes, mirrored, complete=complete, size=size, interpolation=interpolation
    ):
        numbers = range(boxes.shape[0] * boxes.shape[1])[rows]
        out.update(zip(numbers, crops.clone(), strict=True))
    return torch.stack([out[row] for row in sorted(out)])


@pytest.fixture(params=["boxes", "whole chips", "products"])
def road(request, monkeypatch):
    """Each of the three ways to resize: per box and whole chips on the CPU, products on a GPU."""
    if request.param == "boxes":
        monkeypatch.setattr(resample, "_WHOLE_CHIP", 0)
    elif request.param == "products":
        monkeypatch.setattr(resample, "_by_bags", resample._by_products)
    return request.param


BOXES = [
    [[0, 0, 40, 50], [3, 5, 31, 44]],  # shrunk
    [[10, 20, 9, 7], [39, 49, 1, 1]],  # enlarged
    [[5, 0, 16, 16], [0, 2, 40, 3]],  # the size of the crop; shrunk one way, enlarged the other
]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("size", [16, 131, 224])
def test_crops_equal_torchvision(road, interpolation, size):
    pixels = chips()
    crops = crops_of(pixels, BOXES, size=size, interpolation=interpolation)
    for crop, boxes in enumerate(BOXES):
        for i, (top, left, height, width) in enumerate(boxes):
            theirs = tv.resized_crop(
                pixels[i], top, left, height, width, [size, size],
                interpolation=MODES[interpolation], antialias=True,
            )  # fmt: skip
            torch.testing.assert_close(crops[2 * crop + i], theirs, atol=2e-3, rtol=0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float32])
def test_every_stored_type_gives_the_same_crops_as_its_values_in_float32(road, dtype):
    pixels = chips(dtype=torch.uint8)
    expected = crops_of(pixels.to(torch.float32), BOXES, size=16)
    assert torch.equal(crops_of(pixels.to(dtype), BOXES, size=16), expected)


def test_mirrored_boxes_are_flipped_crops(road):
    pixels, plain = chips(), crops_of(chips(), BOXES, size=140)
    for rows, columns in ((True, False), (False, True), (True, True)):
        mirrored = torch.tensor([rows, columns]).expand(3, 2, 2)
        dims = [dim for dim, on in ((2, rows), (3, columns)) if on]
        crops = crops_of(pixels, BOXES, size=140, mirrored=mirrored)
        torch.testing.assert_close(crops, plain.flip(dims), atol=2e-3, rtol=0)


def test_a_crop_of_the_box_size_is_the_box_itself(road):
    crops = crops_of(chips(), [[[4, 6, 16, 16], [0, 0, 16, 16]]], size=16)
    assert torch.equal(crops[0], chips()[0, :, 4:20, 6:22])


def test_with_validity_numerator_and_denominator_are_resized_alike(road):
    pixels = chips()
    valid = torch.ones(2, 40, 50, dtype=torch.bool)
    valid[0, :, :20] = False
    valid[1, 10:12] = False
    crops = crops_of(pixels, BOXES, size=16, valid=valid)
    zeroed = pixels * valid[:, None]
    torch.testing.assert_close(crops[:, :3], crops_of(zeroed, BOXES, size=16))
    shares = crops_of(valid[:, None].to(torch.float32), BOXES, size=16)
    torch.testing.assert_close(crops[:, 3:], shares)


@pytest.mark.parametrize("garbage", [float("nan"), float("inf"), -9999.0, 3e38])
def test_what_lies_under_invalid_pixels_changes_no_bit(road, garbage):
    pixels = chips()
    valid = torch.rand(2, 40, 50, generator=torch.Generator().manual_seed(1)) > 0.3
    expected = crops_of(pixels, BOXES, size=16, valid=valid)
    spoilt = torch.where(valid[:, None], pixels, torch.tensor(garbage))
    assert torch.equal(crops_of(spoilt, BOXES, size=16, valid=valid), expected)
    assert torch.isfinite(expected).all()


def test_the_chips_are_left_as_they_are(road):
    pixels = chips()
    crops_of(pixels, BOXES, size=16, valid=torch.zeros(2, 40, 50, dtype=torch.bool))
    assert torch.equal(pixels, chips())


def test_keep_writes_plus_zero_over_anything():
    pixels = torch.tensor([[[[float("nan"), -5.0, -0.0, 7.0]]]])
    keep(pixels, torch.tensor([[[False, False, False, True]]])[:, None])
    assert pixels.flatten().tolist() == [0.0, 0.0, 0.0, 7.0]
    assert not torch.signbit(pixels).any()


def slow_weights(length, out, position, interpolation):
    """The definition: a kernel stretched by the scale, at pixel centres, within the box."""
    scale = length / out
    stretch = max(scale, 1.0)
    centre = scale * (position + 0.5)
    values = []
    for j in range(length):
        d = abs(j + 0.5 - centre) / stretch
        if interpolation == "bilinear":
            values.append(max(1 - d, 0.0))
        elif d < 1:
            values.append(1.5 * d**3 - 2.5 * d**2 + 1)
        else:
            values.append(-0.5 * d**3 + 2.5 * d**2 - 4 * d + 2 if d < 2 else 0.0)
    return [value / math.fsum(values) for value in values]


@settings(max_examples=80)
@given(
    length=st.integers(1, 60),
    out=st.integers(1, 30),
    start=st.integers(0, 9),
    mirrored=st.booleans(),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
)
def test_taps_are_the_definition_and_stay_within_the_box(
    length, out, start, mirrored, interpolation
):
    taps = make_taps(
        torch.tensor([start]),
        torch.tensor([length]),
        torch.tensor([mirrored]),
        longest=max(length, 33),
        out=out,
        interpolation=interpolation,
    )
    assert int(taps.index.min()) >= start
    assert int(taps.index.max()) < start + length
    dense = taps.dense(start + length)[0]
    torch.testing.assert_close(dense.sum(dim=1), torch.ones(out))
    for row in range(out):
        position = out - 1 - row if mirrored else row
        expected = [0.0] * start + slow_weights(length, out, position, interpolation)
        torch.testing.assert_close(dense[row], torch.tensor(expected), atol=2e-5, rtol=0)


def test_a_complete_chip_is_cut_without_its_mask_when_cut_alone(monkeypatch):
    monkeypatch.setattr(resample, "_WHOLE_CHIP", 0)
    valid = torch.ones(2, 40, 50, dtype=torch.bool)
    valid[1, 0, 0] = False
    parts = resized_crops(
        chips(),
        valid,
        torch.tensor(BOXES),
        torch.zeros(3, 2, 2, dtype=torch.bool),
        complete=valid.all(dim=2).all(dim=1),
        size=16,
        interpolation="bicubic",
    )
    assert [(rows.start % 2, crops.shape[1]) for rows, crops in parts] == [(0, 3), (1, 4)]


def test_no_crops_are_no_work(road):
    boxes = torch.zeros(0, 2, 4, dtype=torch.int64)
    mirrored = torch.zeros(0, 2, 2, dtype=torch.bool)
    complete = torch.ones(2, dtype=torch.bool)
    parts = resized_crops(
        chips(), None, boxes, mirrored, complete=complete, size=16, interpolation="bicubic"
    )
    assert list(parts) == []
