"""Maps from chips: the laws that a seamless map obeys."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from maps_support import Blur, Dizzy, Identity, picture, raster_of

from geodino.errors import RunError
from geodino.geo.windows import Window
from geodino.infer.cover import ChipAxis, Cover
from geodino.infer.engine import predicted
from geodino.infer.ground import Plain


def cover_of(pixels, predictor, *, chip, overlap, group=1):
    return Cover.of(
        *pixels.shape[1:],
        chip=chip,
        overlap=overlap,
        align=predictor.align,
        stride=predictor.stride,
        group=group,
    )


def run(pixels, valid, predictor, cover, window=None, *, wanted=None):
    """Predict a window, or everything; rows without anything to predict stay NaN."""
    window = window or Window(0, 0, cover.rows.out_length, cover.columns.out_length)
    out = np.full((predictor.channels, window.height, window.width), np.nan, dtype=np.float32)
    with ThreadPoolExecutor(2) as threads:
        feed = Plain(raster_of(pixels, valid), cover, window, threads=threads, wanted=wanted)
        below = window.top
        for strip in predicted(feed, predictor, cover, window):
            assert strip.top == below
            below = strip.top + strip.height
            if strip.values is not None:
                top = strip.top - window.top
                out[:, top : top + strip.height] = strip.values
        assert below == window.bottom
    return out


@st.composite
def geometries(draw):
    align = draw(st.sampled_from([1, 4]))
    chip = align * draw(st.integers(1, 6))
    overlap = align * draw(st.integers(0, chip // align // 2))
    size = draw(st.tuples(st.integers(1, 60), st.integers(1, 60)))
    return align, chip, overlap, size, draw(st.integers(1, 4))


@settings(max_examples=30)
@given(geometries())
def test_the_identity_gives_the_raster_back_bit_for_bit(geometry):
    align, chip, overlap, size, group = geometry
    pixels, valid = picture(*size)
    predictor = Identity(align=align)
    cover = cover_of(pixels, predictor, chip=chip, overlap=overlap, group=group)
    np.testing.assert_array_equal(run(pixels, valid, predictor, cover), pixels)
    # Each chip once, in groups that hold none but chips.
    assert len({batch[1:] for batch in predictor.batches}) == 1
    assert sum(batch[0] for batch in predictor.batches) == cover.rows.count * cover.columns.count
    assert max(batch[0] for batch in predictor.batches) <= group


@pytest.mark.parametrize(("chip", "overlap"), [(16, 8), (32, 8), (24, 12), (64, 32), (128, 16)])
@pytest.mark.parametrize("size", [(90, 75), (64, 128), (20, 100)])
def test_an_equivariant_model_gives_what_it_gives_the_whole_image(chip, overlap, size):
    pixels, valid = picture(*size)
    predictor = Blur(reach=min(2, overlap // 4))
    padded = [-(-side // 4) * 4 - side for side in size]
    whole = np.pad(pixels, ((0, 0), (0, padded[0]), (0, padded[1])))
    expected = predictor(torch.from_numpy(whole)[None], torch.ones(1, *whole.shape[1:]) > 0)
    cover = cover_of(pixels, predictor, chip=chip, overlap=overlap)
    found = run(pixels, valid, predictor, cover)
    np.testing.assert_allclose(found, expected[0, :, : size[0], : size[1]], atol=1e-6)


@settings(max_examples=30)
@given(geometries(), st.data())
def test_a_part_of_the_raster_has_the_bits_of_the_whole(geometry, data):
    align, chip, overlap, size, group = geometry
    pixels, valid = picture(*size, holes=0.3)
    predictor = Dizzy(align=align)
    cover = cover_of(pixels, predictor, chip=chip, overlap=overlap, group=group)
    top = data.draw(st.integers(0, size[0] - 1))
    left = data.draw(st.integers(0, size[1] - 1))
    window = Window(
        top,
        left,
        data.draw(st.integers(1, size[0] - top)),
        data.draw(st.integers(1, size[1] - left)),
    )
    rows, columns = window.slices
    used = valid[rows, columns]
    expected = run(pixels, valid, predictor, cover)[:, rows, columns]
    found = run(pixels, valid, predictor, cover, window)
    np.testing.assert_array_equal(found[:, used], expected[:, used])


@settings(max_examples=20)
@given(geometries(), st.integers(0, 9))
def test_leaving_pixels_out_changes_no_other(geometry, seed):
    align, chip, overlap, size, group = geometry
    pixels, valid = picture(*size)
    predictor = Dizzy(align=align)
    cover = cover_of(pixels, predictor, chip=chip, overlap=overlap, group=group)
    rng = np.random.default_rng(seed)
    wanted = np.zeros(size, dtype=bool)
    wanted[: rng.integers(1, size[0] + 1), rng.integers(0, size[1]) :] = True
    expected = run(pixels, valid, predictor, cover)
    found = run(pixels, valid, predictor, cover, wanted=lambda w: wanted[w.slices])
    np.testing.assert_array_equal(found[:, wanted], expected[:, wanted])


def test_values_under_invalid_pixels_change_no_bit():
    pixels, valid = picture(70, 50, holes=0.4)
    predictor = Dizzy()
    cover = cover_of(pixels, predictor, chip=16, overlap=8, group=2)
    expected = run(pixels, valid, predictor, cover)
    for fill in (0.0, -9999.0, np.nan, np.inf):
        spoiled = np.where(valid, pixels, np.float32(fill))
        np.testing.assert_array_equal(
            run(spoiled, valid, predictor, cover)[:, valid], expected[:, valid]
        )


def test_chips_without_a_valid_pixel_are_never_seen():
    pixels, valid = picture(64, 64)
    valid[:, 20:] = False
    valid[30:] = False
    predictor = Identity()
    cover = cover_of(pixels, predictor, chip=16, overlap=0)
    out = run(pixels, valid, predictor, cover)
    assert len(predictor.batches) == 2 * 2
    np.testing.assert_array_equal(out[:, :30, :20], pixels[:, :30, :20])
    assert np.isnan(out[:, 32:]).all()


def test_the_four_borders_are_as_good_as_the_middle():
    # A model that errs at the edge of its chip: what lies there is used at a border only.
    class Edgy(Identity):
        def __call__(self, pixels, valid):
            values = super().__call__(pixels, valid)
            side = torch.arange(values.shape[-1])
            inner = (side >= 1) & (side < len(side) - 1)
            high = torch.arange(values.shape[-2])
            return values + 100.0 * ~(inner & ((high >= 1) & (high < len(high) - 1))[:, None])

    pixels, valid = picture(50, 61)
    predictor = Edgy()
    error = run(pixels, valid, predictor, cover_of(pixels, predictor, chip=16, overlap=4)) - pixels
    assert (error[:, 1:49, 1:60] == 0).all()
    assert (error[:, 0] == 100).all()  # of the raster's own edge nobody knows more


def test_a_patch_counts_where_it_holds_a_valid_pixel():
    pixels, valid = picture(30, 27)
    predictor = Identity(stride=4)
    cover = cover_of(pixels, predictor, chip=16, overlap=8)
    padded = np.pad(pixels, ((0, 0), (0, 2), (0, 1))).reshape(2, 8, 4, 7, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(run(pixels, valid, predictor, cover), padded, atol=1e-6)


def test_a_model_that_gives_nan_is_refused():
    class Broken(Identity):
        def __call__(self, pixels, valid):
            return super().__call__(pixels, valid) * float("nan")

    pixels, valid = picture(20, 20)
    predictor = Broken()
    with pytest.raises(RunError, match="not finite"):
        run(pixels, valid, predictor, cover_of(pixels, predictor, chip=16, overlap=4))


@settings(max_examples=60)
@given(geometries(), st.sampled_from([1, 2, 4]))
def test_the_weights_of_the_chips_over_a_pixel_sum_to_one(geometry, stride):
    align, chip, overlap, (length, _), _ = geometry
    axis = ChipAxis(length * 4, chip=chip * 4, overlap=overlap * 4, align=align * 4, stride=stride)
    total = np.zeros(axis.out_length)
    for number in range(axis.count):
        first, full, end = axis.first(number), axis.full(number), axis.first(number + 1)
        past = axis.full(number + 1) if number + 1 < axis.count else axis.out_length
        start = axis.start(number) // stride
        assert start <= first <= full <= end <= past <= start + axis.out_side
        weight = np.zeros(axis.out_length)
        weight[full:past] = 1
        weight[first:full] = axis.fade(number)
        if number + 1 < axis.count:
            weight[end:past] *= 1 - axis.fade(number + 1)
        assert (weight >= 0).all()
        total += weight
    np.testing.assert_allclose(total, 1, atol=1e-6)


@settings(max_examples=40)
@given(geometries(), st.data())
def test_the_chips_of_a_range_are_those_that_count_there(geometry, data):
    align, chip, overlap, (length, _), _ = geometry
    axis = ChipAxis(length, chip=chip, overlap=overlap, align=align)
    first = data.draw(st.integers(0, length - 1))
    stop = data.draw(st.integers(first + 1, length))
    counting = [
        number
        for number in range(axis.count)
        if axis.first(number) < stop and (number + 1 == axis.count or axis.full(number + 1) > first)
    ]
    assert list(axis.touching(first, stop)) == counting


def test_chips_of_one_axis_by_hand():
    # 40 pixels, chips of 16 with 8 in common: 0..16, 8..24, 16..32, 24..40.
    axis = ChipAxis(40, chip=16, overlap=8, align=4)
    assert [axis.start(i) for i in range(axis.count)] == [0, 8, 16, 24]
    # The first two share 8..16, fade over its middle half 10..14, and count the same at 12.
    assert (axis.first(1), axis.full(1)) == (10, 14)
    angles = np.pi * (np.array([10.5, 11.5, 12.5, 13.5]) - 10) / 4
    np.testing.assert_allclose(axis.fade(1), 0.5 - 0.5 * np.cos(angles), rtol=1e-6)
    # The last chip ends with the raster; where a value is a patch, with its last patch.
    assert ChipAxis(42, chip=16, overlap=8, align=4).start(4) == 42 - 16
    assert ChipAxis(42, chip=16, overlap=8, align=4, stride=4).start(4) == 44 - 16


@pytest.mark.parametrize("options", [{"overlap": 12}, {"overlap": 3}, {"chip": 18}, {"stride": 3}])
def test_geometry_that_cannot_be_is_refused(options):
    with pytest.raises(ValueError, match="ChipAxis"):
        ChipAxis(**({"length": 40, "chip": 16, "overlap": 8, "align": 4} | options))
