"""The picture beside a map: right colours in the right places, a legend, little memory."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread
from rasterio.enums import Resampling

from geodino.errors import SourceError
from geodino.geo.height_colours import height_colours
from geodino.report.quicklook import (
    highest_shown_m,
    quicklook_path,
    round_length_m,
    write_quicklook,
)

LEGEND = 64
UTM = {"crs": "EPSG:32618", "transform": Affine(2, 0, 500_000, 0, -2, 4_500_000)}


def write_map(path, heights, *, centimetres=False, place=UTM, overviews=()):
    """A map of heights in metres; NaN is no data."""
    nodata = 65535 if centimetres else np.nan
    stored = np.asarray(heights, dtype=np.float32)
    if centimetres:
        stored = np.where(np.isnan(stored), nodata, np.rint(stored * 100)).astype(np.uint16)
    with rasterio.open(
        path, "w", driver="GTiff", width=stored.shape[1], height=stored.shape[0], count=1,
        dtype=stored.dtype, nodata=nodata, tiled=True, blockxsize=64, blockysize=64, **place,
    ) as target:  # fmt: skip
        target.write(stored, 1)
        if centimetres:
            target.scales = (0.01,)
    if overviews:
        with rasterio.open(path, "r+") as target:
            target.build_overviews(overviews, Resampling.average)
    return path


def pixels(path):
    return np.rint(255 * imread(path)).astype(np.uint8)


def steps(height=30, width=40):
    """Columns of 0, 1, 2, ... m; the first row has no data."""
    heights = np.tile(np.arange(float(width)), (height, 1))
    heights[0] = np.nan
    return heights


@pytest.mark.parametrize("centimetres", [False, True])
def test_each_pixel_has_the_colour_of_its_height_and_no_data_are_transparent(tmp_path, centimetres):
    path = write_map(tmp_path / "map.tif", steps(), centimetres=centimetres)
    assert write_quicklook(path, highest_m=40.0) == tmp_path / "map.png" == quicklook_path(path)
    picture = pixels(tmp_path / "map.png")
    # 40 columns become 440: each pixel 11 times.
    assert picture.shape == (30 * 11 + LEGEND, 440, 4)
    drawn = picture[5 : 30 * 11 : 11, 5::11]
    np.testing.assert_array_equal(drawn[0], 0)
    np.testing.assert_array_equal(drawn[1:, :, 3], 255)
    wanted = height_colours(steps()[1:], highest_m=40.0).astype(int)
    assert np.abs(drawn[1:, :, :3].astype(int) - wanted).max() <= 1  # centimetres are rounded


def test_the_legend_is_opaque_and_has_the_whole_ramp(tmp_path):
    legend = pixels(write_quicklook(write_map(tmp_path / "m.tif", steps())))[-LEGEND:]
    assert (legend[..., 3] == 255).all()
    ramp = legend[-30, 16 : round(0.58 * 440), :3]
    np.testing.assert_allclose(ramp[0], (245, 227, 196), atol=2)
    np.testing.assert_allclose(ramp[-1], (45, 33, 85), atol=2)


def test_a_scale_bar_is_as_long_as_it_says(tmp_path):
    # Pixels of 2 m, each 11 columns wide: 80 m are 440 columns; 121 columns are free, 20 m of them.
    place = {"crs": "EPSG:32618", "transform": Affine(2, 0, 500_000, 0, -2, 4_500_000)}
    legend = pixels(write_quicklook(write_map(tmp_path / "m.tif", steps(), place=place)))[-LEGEND:]
    line = legend[-28, 255 + 44 :, :3].astype(int).sum(axis=-1) < 300
    dark = np.flatnonzero(line)
    assert dark[-1] - dark[0] == pytest.approx(20 / 2 * 11, abs=3)


def test_a_map_without_a_place_has_no_scale_bar(tmp_path):
    legend = pixels(write_quicklook(write_map(tmp_path / "m.tif", steps(), place={})))[-LEGEND:]
    assert (legend[:, 255 + 44 :] == 255).all()


@settings(max_examples=12)
@given(height=st.integers(1, 1500), width=st.integers(1, 1500))
def test_no_side_is_longer_than_1024(height, width, tmp_path_factory):
    path = write_map(tmp_path_factory.mktemp("side") / "m.tif", np.zeros((height, width)))
    rows, columns, _ = pixels(write_quicklook(path)).shape
    assert max(rows, columns) <= 1024
    assert max(rows - LEGEND, columns) >= 300  # and small maps are enlarged


def test_pixels_come_from_the_overviews(tmp_path):
    # Full resolution is changed behind the overviews' back: the picture must not notice.
    path = write_map(tmp_path / "m.tif", np.full((3000, 3000), 10.0), overviews=[2, 4])
    with rasterio.open(path, "r+") as target:
        target.write(np.full((3000, 3000), 30.0, dtype=np.float32), 1)
    drawn = pixels(write_quicklook(path, highest_m=20.0))[: 1024 - LEGEND - 1, 100:900, :3]
    np.testing.assert_array_equal(np.unique(drawn.reshape(-1, 3), axis=0), [[65, 145, 81]])


def test_the_scale_ignores_single_tall_pixels_and_ends_at_a_round_height(tmp_path):
    heights = np.full((100, 100), 17.3)
    heights[0, 0] = 90.0
    assert highest_shown_m(write_map(tmp_path / "m.tif", heights)) == 18.0


def test_a_map_without_any_height_is_drawn_all_the_same(tmp_path):
    path = write_map(tmp_path / "m.tif", np.full((10, 10), np.nan))
    assert highest_shown_m(path) == 5.0
    assert (pixels(write_quicklook(path))[:-LEGEND] == 0).all()


def test_the_same_map_gives_the_same_bytes(tmp_path):
    path = write_map(tmp_path / "m.tif", steps())
    first = write_quicklook(path).read_bytes()
    assert write_quicklook(path).read_bytes() == first


@given(most=st.floats(0.01, 1e7))
def test_a_scale_bar_is_round_and_fills_at_least_two_fifths_of_its_room(most):
    length = round_length_m(most)
    assert 0.4 * most * (1 - 1e-6) <= length <= most * (1 + 1e-6)
    assert f"{length:e}"[0] in "125"


def test_what_is_no_map_is_told_in_a_sentence(tmp_path):
    (tmp_path / "m.tif").write_bytes(b"nothing")
    with pytest.raises(SourceError, match=r"m\.tif"):
        write_quicklook(tmp_path / "m.tif")
    assert not (tmp_path / "m.png").exists()


def test_real_heights_have_real_legends(shared_data, tmp_path):
    heights = next(shared_data.glob("canopy/neon_bart/*CHM.tif"))
    with rasterio.open(heights) as source:
        path = write_map(
            tmp_path / "m.tif",
            source.read(1, masked=True).filled(np.nan),
            place={"crs": source.crs, "transform": source.transform},
        )
    assert highest_shown_m(path) == 25.0  # the tallest tree has 26.4 m
    assert pixels(write_quicklook(path)).shape == (111 * 4 + LEGEND, 121 * 4, 4)


@pytest.mark.parametrize(("across", "down"), [(2, 2), (-2, 2), (-2, -2)])
def test_north_is_above_and_east_to_the_right_however_rows_and_columns_run(tmp_path, across, down):
    heights = np.zeros((420, 420))
    heights[:210, :210] = 20.0  # the north-west
    write_quicklook(write_map(tmp_path / "up.tif", heights))
    place = Affine(across, 0, 500_000, 0, down, 4_500_000)
    stored = heights[:: -1 if down > 0 else 1, :: -1 if across < 0 else 1]
    odd = write_map(tmp_path / "odd.tif", stored, place={**UTM, "transform": place})
    write_quicklook(odd)
    found, expected = (imread(tmp_path / name)[:420] for name in ("odd.png", "up.png"))
    np.testing.assert_array_equal(found, expected)
    nowhere = write_map(tmp_path / "nowhere.tif", heights, place={"crs": None, "transform": place})
    write_quicklook(nowhere)
    np.testing.assert_array_equal(imread(tmp_path / "nowhere.png")[:420], expected)
