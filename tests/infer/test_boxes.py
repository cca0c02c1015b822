import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.geo.windows import Window
from geodino.infer.boxes import ChipBoxes, ChipLattice, joined

LATTICE = ChipLattice(height=100, width=140, chip=40, overlap=16)


def seen(lattice, chip, objects, *, shift=0.0):
    """What a perfect model says of a chip: every object it sees, clipped, off by ``shift``."""
    window = lattice.window(*chip)
    limits = torch.tensor([window.left, window.top, window.right, window.bottom]).float()
    moved = objects + shift * (1 if sum(chip) % 2 else -1)
    inside = torch.cat(
        [torch.maximum(moved[:, :2], limits[:2]), torch.minimum(moved[:, 2:], limits[2:])], dim=1
    )
    keep = ((inside[:, 2:] - inside[:, :2]) > 0.5).all(dim=1)
    whole = (inside == moved).all(dim=1)
    return ChipBoxes(
        chip=chip,
        boxes=inside[keep],
        classes=torch.zeros(int(keep.sum()), dtype=torch.int64),
        scores=torch.where(whole, 0.9, 0.4)[keep],
    )


def test_chips_reach_the_end_of_the_image_and_no_further():
    # Steps of 24: rows from 0, 24, 48, 72 (to 100), columns from 0, 24, ..., 120 (to 140).
    assert LATTICE.shape == (4, 6)
    assert LATTICE.window(3, 5) == Window(72, 120, 28, 20)
    assert ChipLattice(height=10, width=10, chip=40, overlap=16).shape == (1, 1)


def test_an_overlap_of_more_than_half_a_chip_is_refused():
    with pytest.raises(ValueError, match="overlap of 21"):
        ChipLattice(height=9, width=9, chip=40, overlap=21)


def test_every_place_is_taken_by_some_chip():
    y, x = torch.meshgrid(torch.arange(0.0, 100, 0.5), torch.arange(0.0, 140, 0.5), indexing="ij")
    places = torch.stack([x, y, x, y], dim=-1).reshape(-1, 4)
    taken = sum(LATTICE.takes(*chip, places).int() for chip in LATTICE)
    assert taken.min() == 1
    assert taken.max() == 4


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 86), st.integers(0, 126), st.floats(0, 1, width=32))
def test_an_object_is_found_once_wherever_seams_lie(top, left, shift):
    one = torch.tensor([[left, top, left + 13, top + 13]], dtype=torch.float32)
    found = [seen(LATTICE, chip, one, shift=shift) for chip in LATTICE]
    boxes, classes, scores = joined(LATTICE, found, iou=0.3)
    assert len(boxes) == len(classes) == len(scores) == 1
    assert (boxes[0] - one[0]).abs().max() <= 2.0


def test_two_objects_side_by_side_that_one_chip_says_both_stay():
    objects = torch.tensor([[4.0, 4, 14, 14], [8, 4, 18, 14]])
    boxes, _, _ = joined(LATTICE, [seen(LATTICE, (0, 0), objects)], iou=0.3)
    assert len(boxes) == 2


def objects(seed):
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(25, 2, generator=generator) * torch.tensor([126.0, 86.0])
    return torch.cat([corner, corner + 4 + 9 * torch.rand(25, 2, generator=generator)], dim=1)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_the_order_of_chips_changes_nothing(seed):
    found = [seen(LATTICE, chip, objects(seed)) for chip in LATTICE]
    one, other = joined(LATTICE, found, iou=0.3), joined(LATTICE, found[::-1], iou=0.3)
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000), st.integers(0, 60), st.integers(0, 80))
def test_an_area_has_the_boxes_it_has_in_the_whole_image(seed, top, left):
    area = Window(top, left, 30, 40)
    found = {chip: seen(LATTICE, chip, objects(seed), shift=0.5) for chip in LATTICE}

    def inside(chips):
        boxes, _, scores = joined(LATTICE, [found[chip] for chip in chips], iou=0.3)
        x, y = ((boxes[:, :2] + boxes[:, 2:]) / 2).unbind(dim=1)
        keep = (x >= left) & (x < area.right) & (y >= top) & (y < area.bottom)
        return boxes[keep], scores[keep]

    whole, part = inside(LATTICE), inside(LATTICE.touching(area))
    assert all(torch.equal(a, b) for a, b in zip(whole, part, strict=True))


def test_nothing_found_is_no_box():
    assert [len(one) for one in joined(LATTICE, [], iou=0.5)] == [0, 0, 0]
