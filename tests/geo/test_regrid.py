"""Bands of several resolutions on one grid: against loops over pixels, cut in any way."""

import math

import numpy as np
import pytest
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.geo.grid import Grid
from geodino.geo.regrid import Axis, axes, resample, resample_classes, source_window
from geodino.geo.windows import Window

METHODS = ("nearest", "bilinear", "average")
FILLS = {
    "uint8": (0, 255),
    "uint16": (0, 65535),
    "int16": (0, -9999),
    "float32": (0, -9999, np.nan),
}


def grid(height, width, *, pixel_m=10.0, left=500_000.0, top=4_500_000.0, crs="EPSG:32632"):
    transform = Affine(pixel_m, 0, left, 0, -pixel_m, top)
    return Grid(crs=crs, transform=transform, width=width, height=height)


def regridded(pixels, valid, source, target, how, window=None):
    """Resample as a reader does: cut the part of the source that is needed, then resample."""
    window = window or Window(0, 0, target.height, target.width)
    rows, columns = axes(source, target)
    read = source_window(rows, columns, window, how)
    assert Window(0, 0, source.height, source.width).contains(read)
    cut = (slice(None), *read.slices)
    return resample(
        pixels[cut], valid[cut], read=read, rows=rows, columns=columns, window=window, how=how
    )


# The definitions, one pixel at a time


def taps(start, step, length, place, how):
    """Source pixel -> weight of one output pixel along one axis."""
    centre = start + (place + 0.5) * step
    if how == "nearest":
        return {min(max(math.floor(centre), 0), length - 1): 1.0}
    if how == "bilinear":
        left = math.floor(centre - 0.5)
        found = {}
        for at, weight in ((left, 1 - (centre - 0.5 - left)), (left + 1, centre - 0.5 - left)):
            inside = min(max(at, 0), length - 1)
            found[inside] = found.get(inside, 0.0) + weight
        return found
    low, high = centre - step / 2, centre + step / 2
    shared = {i: min(high, i + 1) - max(low, i) for i in range(length)}
    return {i: part / step for i, part in shared.items() if part > 0}


def slow(pixels, valid, source, target, how):
    """One output pixel after the other; (values, weights on valid pixels), 0 off the source."""
    to_source = ~source.transform @ target.transform
    values = np.zeros((len(pixels), target.height, target.width))
    weights = np.zeros(values.shape)
    for row in range(target.height):
        for column in range(target.width):
            y = to_source.f + (row + 0.5) * to_source.e
            x = to_source.c + (column + 0.5) * to_source.a
            if not (0 <= y <= source.height and 0 <= x <= source.width):
                continue
            down = taps(to_source.f, to_source.e, source.height, row, how)
            across = taps(to_source.c, to_source.a, source.width, column, how)
            for band in range(len(pixels)):
                total = weight = 0.0
                for i, of_row in down.items():
                    for j, of_column in across.items():
                        if valid[band, i, j]:
                            total += of_row * of_column * float(pixels[band, i, j])
                            weight += of_row * of_column
                weights[band, row, column] = weight
                values[band, row, column] = total / weight if weight else 0.0
    return values, weights


# Steps and shifts are multiples of 1/8: binary fractions, so that no loop hangs on the last bit.
eighths = st.integers(-12, 20).map(lambda n: n / 8)
sides = st.integers(1, 9)
layouts = st.fixed_dictionaries(
    {
        "source": st.tuples(sides, sides),
        "target": st.tuples(sides, sides),
        "shift": st.tuples(eighths, eighths),
        "step": st.sampled_from([1 / 4, 3 / 8, 1 / 2, 1.0, 3 / 2, 2.0, 5 / 2, 4.0]),
        "dtype": st.sampled_from(sorted(FILLS)),
        "seed": st.integers(0, 10_000),
        "share": st.sampled_from([0.0, 0.3, 0.8, 1.0]),
    }
)
laws = settings(max_examples=80)


def laid_out(layout):
    """Grids, pixels and validity of a drawn layout; source pixels are 16 m, a binary number."""
    (h, w), (dy, dx), step = layout["source"], layout["shift"], layout["step"]
    source = grid(h, w, pixel_m=16.0)
    target = grid(
        *layout["target"],
        pixel_m=16.0 * step,
        left=500_000.0 + 16.0 * dx,
        top=4_500_000.0 - 16.0 * dy,
    )
    rng = np.random.default_rng(layout["seed"])
    pixels = rng.integers(1, 250, (2, h, w)).astype(layout["dtype"])
    valid = rng.random((2, h, w)) < layout["share"]
    return source, target, pixels, valid


@laws
@given(layout=layouts, how=st.sampled_from(METHODS))
def test_every_method_is_the_definition_applied_to_each_pixel(layout, how):
    source, target, pixels, valid = laid_out(layout)
    got, kept = regridded(pixels, valid, source, target, how)
    values, weights = slow(pixels, valid, source, target, how)
    assert got.dtype == pixels.dtype
    doubtful = np.abs(weights - 0.5) < 1e-5
    np.testing.assert_array_equal(kept[~doubtful], (weights > 0.5)[~doubtful])
    if pixels.dtype.kind == "f":
        np.testing.assert_allclose(got[kept], values[kept], rtol=1e-5)
    else:
        # A mean halfway between two whole numbers may be rounded to either.
        assert np.abs(got[kept].astype(float) - values[kept]).max(initial=0) <= 0.5 + 1e-4
    assert (got[~kept] == 0).all()


@laws
@given(layout=layouts, how=st.sampled_from(METHODS), data=st.data())
def test_any_window_has_the_bits_of_the_whole(layout, how, data):
    source, target, pixels, valid = laid_out(layout)
    pixels = (pixels * np.float32(1.1)).astype(pixels.dtype)
    whole, whole_kept = regridded(pixels, valid, source, target, how)
    top = data.draw(st.integers(0, target.height - 1))
    left = data.draw(st.integers(0, target.width - 1))
    height = data.draw(st.integers(1, target.height - top))
    width = data.draw(st.integers(1, target.width - left))
    window = Window(top, left, height, width)
    part, kept = regridded(pixels, valid, source, target, how, window)
    cut = (slice(None), *window.slices)
    assert part.tobytes() == np.ascontiguousarray(whole[cut]).tobytes()
    np.testing.assert_array_equal(kept, whole_kept[cut])


@laws
@given(layout=layouts, how=st.sampled_from(METHODS))
def test_values_under_invalid_pixels_change_no_bit(layout, how):
    source, target, pixels, valid = laid_out(layout)
    found = set()
    for fill in FILLS[layout["dtype"]]:
        filled = np.where(valid, pixels, pixels.dtype.type(fill))
        got, kept = regridded(filled, valid, source, target, how)
        found.add((got.tobytes(), kept.tobytes()))
    assert len(found) == 1


@laws
@given(layout=layouts, how=st.sampled_from(METHODS), whole=st.booleans())
def test_bands_that_are_valid_alike_may_share_their_validity(layout, how, whole):
    source, target, pixels, valid = laid_out(layout)
    shared = valid[:1] | whole
    got, kept = regridded(pixels, shared, source, target, how)
    each, each_kept = regridded(pixels, shared.repeat(2, axis=0), source, target, how)
    assert got.tobytes() == each.tobytes()
    np.testing.assert_array_equal(kept.repeat(2, axis=0), each_kept)
    # Beside a band that has a hole, nothing is taken for granted.
    beside = np.concatenate([shared.repeat(2, axis=0), np.zeros_like(shared)])
    slowly, slowly_kept = regridded(pixels[[0, 1, 0]], beside, source, target, how)
    assert got.tobytes() == slowly[:2].tobytes()
    np.testing.assert_array_equal(each_kept, slowly_kept[:2])


# Arithmetic a reader can redo


def test_grids_that_coincide_give_the_pixels_back():
    pixels = np.arange(24, dtype=np.uint16).reshape(1, 4, 6) + 1
    for how in METHODS:
        got, kept = regridded(pixels, np.ones_like(pixels, bool), grid(4, 6), grid(4, 6), how)
        np.testing.assert_array_equal(got, pixels)
        assert kept.all()


def row_of(values, how, *, target, pixel_m, shift_m=0.0, valid=None):
    """Resample one row of 30 m pixels along its columns."""
    pixels = np.array(values, dtype=np.float32).reshape(1, 1, -1)
    valid = np.ones_like(pixels, bool) if valid is None else np.array(valid).reshape(1, 1, -1)
    source = grid(1, len(values), pixel_m=30.0)
    transform = Affine(pixel_m, 0, 500_000.0 + shift_m, 0, -30.0, 4_500_000.0)
    wanted = Grid(crs="EPSG:32632", transform=transform, width=target, height=1)
    got, kept = regridded(pixels, valid, source, wanted, how)
    return got[0, 0].tolist(), kept[0, 0].tolist()


def test_landsats_15_m_grid_lies_half_a_pixel_inside_its_30_m_grid():
    # Centres coincide, so corners differ by 7.5 m: fine centres lie at 15, 30, 45, 60 ... m, on
    # the centres of coarse pixels (15, 45, 75) and on their edges in turn.
    got, kept = row_of([10, 20, 30], "bilinear", target=5, pixel_m=15.0, shift_m=7.5)
    assert got == [10, 15, 20, 25, 30]
    assert all(kept)
    # On an edge the pixel to the right is as near as the one to the left, and is taken.
    assert row_of([10, 20, 30], "nearest", target=5, pixel_m=15.0, shift_m=7.5)[0] == [
        10, 20, 20, 30, 30,
    ]  # fmt: skip


def test_pixels_halved_in_place_are_mixed_one_to_three():
    # Centres at 7.5, 22.5, 37.5, 52.5 m between coarse centres at 15 and 45 m. Beyond the outer
    # centres the edge pixel stands for what is not there.
    got, _ = row_of([10, 20], "bilinear", target=4, pixel_m=15.0)
    assert got == [10, 12.5, 17.5, 20]
    assert row_of([10, 20], "nearest", target=4, pixel_m=15.0)[0] == [10, 10, 20, 20]
    assert row_of([10, 20], "average", target=4, pixel_m=15.0)[0] == [10, 10, 20, 20]


def test_an_average_weighs_pixels_by_the_area_they_share():
    # 45 m pixels over 30 m pixels: (30 * 10 + 15 * 20) / 45 and (15 * 20 + 30 * 40) / 45.
    got, _ = row_of([10, 20, 40], "average", target=2, pixel_m=45.0)
    assert got == pytest.approx([600 / 45, 1500 / 45])


def test_an_average_at_the_edge_is_of_the_pixels_that_exist():
    # The second 90 m pixel covers two pixels of the source and 30 m of nothing: (40 + 80) / 2.
    # The third lies off it.
    got, kept = row_of([10, 20, 30, 40, 80], "average", target=3, pixel_m=90.0)
    assert got == [20, 60, 0]
    assert kept == [True, True, False]


def test_half_of_the_weight_must_be_valid():
    # 60 m pixels over pairs of 30 m pixels: one of two is half, and enough.
    got, kept = row_of(
        [10, 20, 30, 40, 50, 60], "average", target=3, pixel_m=60.0,
        valid=[True, True, False, True, False, False],
    )  # fmt: skip
    assert (got, kept) == ([15, 40, 0], [True, True, False])
    # Quarters: the pixel beside an invalid one has 3/4 of its weight, the next one 1/4.
    got, kept = row_of([10, 20], "bilinear", target=4, pixel_m=15.0, valid=[True, False])
    assert (got, kept) == ([10, 10, 0, 0], [True, True, False, False])


def test_what_lies_off_the_source_is_not_valid():
    got, kept = row_of([10, 20], "nearest", target=4, pixel_m=30.0, shift_m=-30.0)
    assert (got, kept) == ([0, 10, 20, 0], [False, True, True, False])
    for how in METHODS:
        _, kept = row_of([10, 20], how, target=2, pixel_m=30.0, shift_m=3000.0)
        assert kept == [False, False]


@pytest.mark.parametrize("ratio", [1 / 6, 1 / 3, 1 / 2, 1.0, 2.0, 3.0, 6.0])
@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, -1.75])
def test_every_pixel_knows_its_place(ratio, shift):
    # Bands that hold the x and the y of their pixels' centres: bilinear and average are exact on
    # such ramps, nearest is within half a pixel. Edges, where ramps end, are left out.
    source = grid(40, 50, pixel_m=20.0)
    target = grid(
        int(40 / ratio), int(50 / ratio), pixel_m=20.0 * ratio,
        left=500_000.0 + 20 * shift, top=4_500_000.0 - 20 * shift,
    )  # fmt: skip

    def centres(of):
        rows, columns = np.mgrid[0 : of.height, 0 : of.width] + 0.5
        a, _, c, _, e, f = of.transform[:6]
        return np.stack([a * columns + c - 500_000.0, e * rows + f - 4_500_000.0])

    ramp = centres(source)
    # An average over finer pixels repeats the coarse ones: it is no ramp.
    for how in METHODS if ratio >= 1 else ("nearest", "bilinear"):
        got, kept = regridded(ramp, np.ones(ramp.shape, bool), source, target, how)
        wanted = centres(target)
        margin = 20.0 * max(ratio, 1.0)
        x, y = wanted
        inner = (x > margin) & (x < 1000 - margin) & (y < -margin) & (y > -800 + margin)
        assert inner.any()
        assert kept[:, inner].all()
        # Corners in millions of metres: a millionth of a pixel is what coordinates allow.
        error = np.abs(got - wanted)[:, inner].max()
        assert error <= (10.0 + 1e-3 if how == "nearest" else 1e-3)


def test_corners_written_in_decimals_are_one_corner():
    # A thousandth of a millimetre aside, the same pixels are chosen and weighed.
    pixels = np.arange(36, dtype=np.float32).reshape(1, 6, 6)
    valid = np.ones_like(pixels, bool)
    for how in METHODS:
        exact, _ = regridded(pixels, valid, grid(6, 6, pixel_m=30.0), grid(9, 9, pixel_m=20.0), how)
        moved = grid(9, 9, pixel_m=20.0, left=500_000.000001, top=4_499_999.999999)
        almost, kept = regridded(pixels, valid, grid(6, 6, pixel_m=30.0), moved, how)
        np.testing.assert_array_equal(almost, exact)
        assert kept.all()


def test_an_axis_tells_what_it_draws_on():
    # Fine pixels 4 and 5 of 10 m on coarse ones of 20 m: centres at 2.25 and 2.75 pixels.
    axis = Axis(0.0, 0.5, 10)
    assert axis.reach(4, 6, "nearest") == (2, 3)
    assert axis.reach(4, 6, "bilinear") == (1, 4)
    index, weight = axis.taps(np.array([4]), "bilinear")
    assert index[:, 0].tolist() == [1, 2]
    assert weight[:, 0].tolist() == [0.25, 0.75]


# Grids that cannot be brought together without reprojection


ROTATED = Affine.translation(500_000, 4_500_000) @ Affine.rotation(30) @ Affine.scale(10, -10)


@pytest.mark.parametrize(
    "other",
    [
        Grid("EPSG:32633", Affine(10, 0, 500_000, 0, -10, 4_500_000), 8, 8),
        Grid(None, Affine(10, 0, 500_000, 0, -10, 4_500_000), 8, 8),
        Grid("EPSG:32632", ROTATED, 8, 8),
        Grid("EPSG:32632", Affine(10, 0, 500_000, 0, 10, 4_499_920), 8, 8),
        Grid("EPSG:32632", Affine(-10, 0, 500_080, 0, -10, 4_500_000), 8, 8),
        Grid("EPSG:32632", Affine(0, 10, 500_000, -10, 0, 4_500_000), 8, 8),
    ],
    ids=["other zone", "no CRS", "rotated", "south up", "mirrored", "rows are columns"],
)
def test_other_systems_and_other_axes_are_refused(other):
    here = grid(8, 8)
    assert axes(here, other) is None
    assert axes(other, here) is None


def test_grids_turned_alike_are_parallel():
    finer = Grid("EPSG:32632", ROTATED @ Affine.scale(0.5), 16, 16)
    rows, columns = axes(Grid("EPSG:32632", ROTATED, 8, 8), finer)
    assert (rows.step, columns.step) == pytest.approx((0.5, 0.5))
    assert (rows.start, columns.start) == pytest.approx((0.0, 0.0), abs=1e-6)


# Numbers of classes


def slow_classes(classes, source, target, how):
    """The definition, one pixel of the target at a time."""
    rows, columns = axes(source, target)
    found = np.full((target.height, target.width), 255, np.uint8)
    for i in range(target.height):
        for j in range(target.width):
            y, x = rows.start + (i + 0.5) * rows.step, columns.start + (j + 0.5) * columns.step
            if not (0 <= y < source.height and 0 <= x < source.width):
                continue
            held = [
                classes[k, m]
                for k in range(source.height)
                for m in range(source.width)
                if abs(k + 0.5 - y) < rows.step / 2 and abs(m + 0.5 - x) < columns.step / 2
            ]
            known = [c for c in held if c != 255]
            if how == "nearest" or not held:
                found[i, j] = classes[int(y), int(x)]
            elif known:
                found[i, j] = min(set(known), key=lambda c: (-known.count(c), c))
    return found


@settings(max_examples=60)
@given(
    seed=st.integers(0, 1000),
    # No centre of a pixel falls on an edge of these.
    pixel_m=st.sampled_from([3.1, 7.3, 10.3, 23.7, 41.9]),
    shift_m=st.sampled_from([0.0, 3.77, -16.13]),
    how=st.sampled_from(["majority", "nearest"]),
    top=st.integers(0, 3),
    left=st.integers(0, 3),
)
def test_classes_are_those_of_most_pixels_and_a_window_has_the_same_bits(
    seed, pixel_m, shift_m, how, top, left
):
    source = grid(17, 13)
    target = grid(
        max(4, int(170 / pixel_m)), max(4, int(130 / pixel_m)),
        pixel_m=pixel_m, left=500_000.0 + shift_m, top=4_500_000.0 - shift_m,
    )  # fmt: skip
    classes = np.random.default_rng(seed).choice([0, 1, 7, 254, 255], (17, 13)).astype(np.uint8)
    rows, columns = axes(source, target)
    expected = slow_classes(classes, source, target, how)
    for window in (
        Window(0, 0, target.height, target.width),
        Window(top, left, target.height - top, target.width - left),
    ):
        read = source_window(rows, columns, window, "average")
        found = resample_classes(
            classes[read.slices], read=read, rows=rows, columns=columns, window=window, how=how,
            ignored=255,
        )  # fmt: skip
        np.testing.assert_array_equal(found, expected[window.slices])


def test_one_labelled_pixel_of_four_decides_and_none_leaves_no_class():
    # [[255, 3], [255, 255]] is 3; four times 255 is 255; a tie of 2 and 1 is 1.
    classes = np.array([[255, 3, 255, 255, 2, 1], [255, 255, 255, 255, 1, 2]], dtype=np.uint8)
    rows, columns = axes(grid(2, 6), grid(1, 3, pixel_m=20.0))
    whole = Window(0, 0, 1, 3)
    read = source_window(rows, columns, whole, "average")
    found = resample_classes(
        classes[read.slices], read=read, rows=rows, columns=columns, window=whole,
        how="majority", ignored=255,
    )  # fmt: skip
    assert found.tolist() == [[3, 255, 1]]
