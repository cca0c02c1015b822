import numpy as np
import pytest

from geodino.errors import SourceError
from geodino.world.masks import collar, frame_collar, holes, masked, stripes
from geodino.world.scene import scene


def test_a_collar_is_a_turned_rectangle_around_the_centre():
    valid = collar(3, height=200, width=300, margin=0.1)
    assert valid[100, 150]
    assert not valid[[0, 0, -1, -1], [0, -1, 0, -1]].any()
    assert 0.55 < valid.mean() <= 0.65
    # A convex footprint: every row is one run of valid pixels.
    steps = np.diff(valid.astype(int), axis=1, prepend=0, append=0)
    assert ((steps == 1).sum(axis=1) <= 1).all()
    assert (collar(3, height=200, width=300, margin=0.1) == valid).all()
    assert (collar(4, height=200, width=300, margin=0.1) != valid).any()


def test_a_straight_collar_has_its_width():
    valid = frame_collar(height=10, width=12, pixels=3)
    assert valid.sum() == 4 * 6
    assert valid[3:7, 3:9].all()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_holes_hide_their_share_to_the_pixel(share):
    valid = holes(0, height=50, width=40, share=share)
    assert (~valid).sum() == round(share * 2000)


def test_holes_hang_together():
    valid = holes(0, height=64, width=64, share=0.3, size=30.0)
    same = (valid[1:] == valid[:-1]).mean()
    assert same > 0.9


def test_stripes_repeat():
    valid = stripes(height=7, width=2, period=3, missing=1)
    assert valid[:, 0].tolist() == [False, True, True, False, True, True, False]


def test_masks_add_up_and_take_any_fill_their_type_holds():
    whole = scene(0, height=8, width=8)
    left, top = np.ones((8, 8), bool), np.ones((8, 8), bool)
    left[:, :2], top[:3] = False, False
    got = masked(masked(whole, left, fill=0), top, fill=255)
    np.testing.assert_array_equal(got.valid, left & top)
    assert (got.pixels[:, ~got.valid] == 255).all()
    floats = masked(whole, left, fill=float("nan"), dtype="float32")
    assert np.isnan(floats.pixels[:, ~left]).all()
    assert np.isfinite(floats.pixels[:, left]).all()
    for fill in (-9999, 256, 0.5, float("nan")):
        with pytest.raises(SourceError, match="uint8 cannot hold"):
            masked(whole, left, fill=fill)
