"""Statistics of stored pixels against numpy in float64."""

import numpy as np
import pytest

from geodino.io.cog.measure import moments_of


@pytest.mark.parametrize("dtype", ["uint8", "int8", "uint16", "int16", "float32"])
@pytest.mark.parametrize("holes", [0.0, 0.3, 1.0])
def test_moments_are_those_of_the_valid_pixels(dtype, holes):
    rng = np.random.default_rng(3)
    nodata = -9999.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    values = rng.normal(60, 12, (2, 70, 300)).clip(0, 120).astype(dtype)
    lack = rng.random(values.shape) < holes
    values[lack] = nodata
    found = moments_of(values, nodata=nodata)
    for band in range(2):
        valid = values[band][~lack[band]].astype(np.float64)
        assert found.count[band] == valid.size
        if valid.size:
            assert (found.low[band], found.high[band]) == (valid.min(), valid.max())
            assert found.mean[band] == pytest.approx(valid.mean(), rel=1e-7)
            assert found.std[band] == pytest.approx(valid.std(), rel=1e-6)
        else:
            assert found.low[band] == np.inf


def test_nan_and_infinity_are_no_values():
    values = np.array([[[1.0, np.nan, 3.0, np.inf, -np.inf]]], dtype=np.float32)
    found = moments_of(values, nodata=None)
    assert (found.count[0], found.mean[0], found.std[0]) == (2, 2.0, 1.0)


def test_a_small_spread_far_from_zero_is_not_lost():
    # 2**23 + {0, 1, 2, 3}: float32 holds them, their squares it does not. Variance 1.25.
    values = (2.0**23 + np.arange(4096) % 4).astype(np.float32).reshape(1, 64, 64)
    found = moments_of(values, nodata=float("nan"))
    assert found.std[0] == pytest.approx(1.25**0.5, rel=1e-6)


def test_the_smallest_number_may_be_nodata_in_its_usual_decimals():
    values = np.array([[[np.finfo(np.float32).min, 2.0]]], dtype=np.float32)
    assert moments_of(values, nodata=-3.4028235e38).count[0] == 1
