"""Change of features: the measure, the two dates as one raster, and how change is stored."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from maps_support import picture, raster_of

from geodino.geo.windows import Window
from geodino.infer.change import ChangeProduct, cosine_distance, stacked


def test_the_distance_is_one_less_the_cosine():
    # At 0, 60, 90 and 180 degrees the cosine is 1, 0.5, 0 and -1; lengths do not matter.
    angles = torch.tensor([0.0, 60.0, 90.0, 180.0]) * math.pi / 180
    before = torch.tensor([3.0, 0.0])[None, :, None].expand(1, 2, 4)
    after = 0.2 * torch.stack([angles.cos(), angles.sin()])[None]
    expected = torch.tensor([[0.0, 0.5, 1.0, 2.0]])
    torch.testing.assert_close(cosine_distance(before, after), expected, atol=1e-6, rtol=0)


@given(seed=st.integers(0, 2**31), dim=st.integers(1, 40), size=st.floats(1e-3, 1e3))
def test_equal_features_are_at_no_distance_whatever_they_are(seed, dim, size):
    generator = torch.Generator().manual_seed(seed)
    features = size * torch.randn((1, dim, 7), generator=generator)
    other = torch.randn((1, dim, 7), generator=generator)
    assert not cosine_distance(features, features.clone()).any()
    assert torch.equal(cosine_distance(features, other), cosine_distance(other, features))
    slow = 1 - torch.nn.functional.cosine_similarity(features.double(), other.double(), dim=1)
    torch.testing.assert_close(cosine_distance(features, other).double(), slow, atol=1e-5, rtol=0)


def test_both_dates_are_one_raster_that_is_valid_where_both_are():
    (first, valid_first), (second, valid_second) = (
        picture(20, 30, seed=seed, holes=0.3) for seed in (1, 2)
    )
    both = stacked(raster_of(first, valid_first), raster_of(second, valid_second))
    pixels, valid = both.read(Window(3, 5, 10, 12))
    np.testing.assert_array_equal(pixels[:2], first[:, 3:13, 5:17])
    np.testing.assert_array_equal(pixels[2:], second[:, 3:13, 5:17])
    np.testing.assert_array_equal(valid, (valid_first & valid_second)[3:13, 5:17])


@pytest.mark.parametrize(
    ("dtype", "stored"), [("float32", [0.126, 0.5, np.nan]), ("uint8", [13, 50, 255])]
)
def test_change_is_stored_with_its_valid_share_and_a_hole_in_both_bands(dtype, stored):
    values = np.array([[[0.126, 0.5, 0.7]], [[1.0, 0.25, 0.0]]], dtype=np.float32)
    valid = np.array([[True, True, False]])
    product = ChangeProduct(dtype=dtype)
    bands = product.stored(values, valid)["change"]
    assert bands.dtype == dtype
    np.testing.assert_array_equal(bands[0, 0], np.array(stored, dtype=dtype))
    assert np.array_equal(bands[1, 0, 2:], bands[0, 0, 2:], equal_nan=True)
    empty = product.stored(None, valid)["change"]
    assert np.array_equal(empty, np.full_like(bands, bands[0, 0, 2]), equal_nan=True)
