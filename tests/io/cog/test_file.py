"""The written file: pixels, layout, place on the Earth, what is said of the bands."""

import numpy as np
import pytest
import rasterio
from affine import Affine
from cog_support import PLACE, grid_of, layer_of, layout_of, slow_halve, write_map
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.enums import ColorInterp
from rasterio.io import MemoryFile
from rio_cogeo import cog_validate

from geodino.io.cog.layout import Layer, Layout
from geodino.io.cog.template import described
from geodino.io.cog.tiff import container
from geodino.io.whole import missing

NAN = float("nan")
laws = settings(max_examples=20)


rasters = st.fixed_dictionaries(
    {
        "dtype": st.sampled_from(["uint8", "int8", "uint16", "int16", "float32"]),
        "shape": st.tuples(st.integers(1, 4), st.integers(1, 150), st.integers(1, 150)),
        "seed": st.integers(0, 99),
        "has_nodata": st.booleans(),
        "side": st.sampled_from([16, 32, 64]),
        "interleave": st.sampled_from(["band", "pixel"]),
        "compression": st.sampled_from(["zstd", "deflate"]),
        "resampling": st.sampled_from(["average", "mode"]),
    }
)
"""Any stored type and size, noise with a hole of nodata."""


def drawn(*, dtype, shape, seed, has_nodata, **fields):
    nodata = NAN if dtype == "float32" else float(np.iinfo(dtype).min)
    values = np.random.default_rng(seed).normal(40, 30, shape).clip(0, 120).astype(dtype)
    values[:, : shape[1] // 2, shape[2] // 3 :] = nodata
    return values, layer_of(values, nodata=nodata if has_nodata else None, **fields)


def by_rasterio(values, layer):
    """The same pixels through GDAL's own writer, read again."""
    with MemoryFile() as memory:
        with memory.open(
            driver="GTiff",
            count=layer.count,
            height=values.shape[1],
            width=values.shape[2],
            dtype=layer.dtype,
            nodata=layer.nodata,
            transform=PLACE,
        ) as target:
            target.write(values)
        with memory.open() as found:
            return found.read(), found.read_masks()


@laws
@given(case=rasters)
def test_any_raster_reads_as_rasterio_writes_it(case, tmp_path_factory):
    side = case.pop("side")
    values, layer = drawn(**case)
    layout = layout_of(values, block=16, side=side)
    path = write_map(tmp_path_factory.mktemp("law") / "a.tif", values, layer, layout)
    pixels, masks = by_rasterio(values, layer)
    with rasterio.open(path) as found:
        np.testing.assert_array_equal(found.read(), pixels)
        np.testing.assert_array_equal(found.read_masks(), masks)
        assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        assert found.profile["compress"] == layer.compression
        if layer.count > 1:
            assert found.profile["interleave"] == layer.interleave
    assert missing(path) is None
    for level in range(layout.levels):
        values = np.stack([slow_halve(b, layer.nodata, layer.resampling) for b in values])
        with rasterio.open(path, overview_level=level) as found:
            np.testing.assert_allclose(found.read(), values, rtol=1e-5)


@pytest.mark.parametrize(
    ("interleave", "dtype", "big"),
    [
        ("band", "uint8", False),
        ("pixel", "uint8", True),
        ("band", "float32", True),
        ("pixel", "float32", False),
    ],
)
def test_validators_find_nothing_to_say(tmp_path, interleave, dtype, big):
    values = np.random.default_rng(0).integers(1, 200, (3, 1500, 1100)).astype(dtype)
    values[:, 500:1100, :600] = 0
    layer = layer_of(values, nodata=0.0, interleave=interleave)
    layout = Layout.plan(grid_of(values), [layer])
    path = write_map(tmp_path / "a.tif", values, layer, layout, big=big)
    assert cog_validate(path, strict=True) == (True, [], [])
    assert (path.read_bytes()[2] == 43) == big
    with rasterio.open(path) as found:
        assert found.block_shapes == [(512, 512)] * 3
        assert found.overviews(1) == [2, 4]
        assert found.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
        np.testing.assert_array_equal(found.read(), values)


def test_blocks_without_data_take_no_room(tmp_path):
    values = np.full((1, 2048, 2048), NAN, dtype=np.float32)
    values[0, 5, 7] = 1.0
    layer = layer_of(values, nodata=NAN)
    path = write_map(tmp_path / "a.tif", values, layer, layout_of(values, block=512, side=1024))
    assert path.stat().st_size < 20_000
    assert cog_validate(path, strict=True)[0]
    with rasterio.open(path) as found:
        np.testing.assert_array_equal(found.read(), values)


@pytest.mark.parametrize("point", ["Area", "Point"])
@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32618", PLACE),
        ("EPSG:4326", Affine(0.1, 0, -71.5, 0, 0.1, 42.0)),  # latitude grows downwards
        ("EPSG:2154", Affine(0.5, 0.2, 700_000.25, 0.3, -0.5, 6_600_000)),  # rotated
        (None, Affine(2, 0, 10, 0, -2, 20)),
        (None, Affine.identity()),
        ("EPSG:32618", Affine.identity()),
    ],
)
def test_the_place_of_every_pixel_is_kept(tmp_path, crs, transform, point):
    values = np.ones((1, 40, 50), dtype=np.uint8)
    layout = layout_of(values, block=16, side=32, crs=crs, transform=transform)
    layer = layer_of(values, nodata=None)
    path = write_map(tmp_path / "a.tif", values, layer, layout, area_or_point=point)
    with rasterio.open(path) as found:
        assert found.crs == crs
        assert found.transform.almost_equals(transform, 1e-9)
        # GDAL tells nothing of a map without a CRS whose pixels are areas.
        assert found.tags().get("AREA_OR_POINT", "Area") == point


def test_bands_say_what_they_are(tmp_path):
    values = np.arange(2 * 40 * 50, dtype=np.int16).reshape(2, 40, 50)
    layer = layer_of(
        values,
        nodata=-1.0,
        descriptions=("height", "spread"),
        units=("m", "m"),
        scales=(0.01, 0.5),
        offsets=(0.0, -3.0),
    )
    tags = {"GEODINO_MODEL": "abc", "TIFFTAG_SOFTWARE": "geodino"}
    layout = layout_of(values, block=16, side=32)
    with rasterio.open(write_map(tmp_path / "a.tif", values, layer, layout, tags=tags)) as found:
        assert found.descriptions == ("height", "spread")
        assert found.units == ("m", "m")
        assert found.scales == (0.01, 0.5)
        assert found.offsets == (0.0, -3.0)
        assert found.nodata == -1
        assert found.tags().items() >= tags.items()
        assert found.tags(2)["STATISTICS_MINIMUM"] == "2000"
        assert found.tags(2)["STATISTICS_MAXIMUM"] == "3999"
        assert float(found.tags(2)["STATISTICS_MEAN"]) == pytest.approx(2999.5)
        assert found.tags(2)["STATISTICS_VALID_PERCENT"] == "100"
        assert found.tags(ns="IMAGE_STRUCTURE")["PREDICTOR"] == "2"


def test_classes_have_their_colours_and_overviews_of_classes(tmp_path):
    values = np.full((1, 40, 40), 255, dtype=np.uint8)
    values[0, :20] = 3
    table = {3: (0, 128, 0, 255), 255: (0, 0, 0, 0)}
    layer = layer_of(values, nodata=255.0, resampling="mode", colour_table=table, statistics=False)
    layout = layout_of(values, block=16, side=32)
    with rasterio.open(write_map(tmp_path / "a.tif", values, layer, layout)) as found:
        assert found.colormap(1)[3] == (0, 128, 0, 255)
        assert found.colorinterp == (ColorInterp.palette,)
        assert "STATISTICS_MEAN" not in found.tags(1)
    with rasterio.open(tmp_path / "a.tif", overview_level=0) as found:
        assert found.colormap(1)[3] == (0, 128, 0, 255)
        assert set(np.unique(found.read())) == {3, 255}


def test_a_picture_is_red_green_and_blue_on_all_levels(tmp_path):
    values = np.full((3, 40, 40), 7, dtype=np.uint8)
    layer = layer_of(values, nodata=0.0, interleave="pixel", colours=True)
    path = write_map(tmp_path / "a.tif", values, layer, layout_of(values, block=16, side=16))
    for level in ({}, {"overview_level": 0}):
        with rasterio.open(path, **level) as found:
            assert found.colorinterp == (ColorInterp.red, ColorInterp.green, ColorInterp.blue)
            assert (found.read() == 7).all()


def test_a_thousand_bands_keep_their_names_and_statistics(tmp_path):
    values = np.random.default_rng(0).normal(size=(1000, 20, 20)).astype(np.float32)
    names = tuple(f"feature {i}" for i in range(1000))
    layer = layer_of(values, nodata=NAN, descriptions=names)
    path = write_map(tmp_path / "a.tif", values, layer, Layout.plan(grid_of(values), [layer]))
    with rasterio.open(path) as found:
        assert found.descriptions == names
        assert float(found.tags(1000)["STATISTICS_MEAN"]) == pytest.approx(values[-1].mean())
        np.testing.assert_array_equal(found.read(1000), values[-1])


def test_a_map_without_a_valid_pixel_is_written_all_the_same(tmp_path):
    values = np.full((1, 40, 40), NAN, dtype=np.float32)
    layer = layer_of(values, nodata=NAN)
    path = write_map(tmp_path / "a.tif", values, layer, layout_of(values, block=16, side=32))
    with rasterio.open(path) as found:
        assert np.isnan(found.read()).all()
        assert "STATISTICS_MEAN" not in found.tags(1)


def planned(tile_bytes, **options):
    """The container of a map of 64 x 64 blocks, each of so many bytes."""
    layer = Layer(name="map", count=1, dtype="uint8", nodata=None, statistics=False)
    layout = layout_of(np.empty((1, 32768, 32768), dtype=np.uint8), block=512, side=4096)
    sizes = [
        np.full((1, *layout.tiles(level)), tile_bytes, dtype=np.uint32)
        for level in range(layout.levels + 1)
    ]
    fields = described(layer, layout.grid, tags={}, area_or_point="Area", moments=None)
    return container(layout, fields, sizes, **options)


def test_a_file_becomes_a_bigtiff_where_four_gib_are_not_enough():
    # 4096 + 1024 + ... + 1 = 5461 blocks. 786,000 bytes each: 4.29e9, just below 2**32.
    small, large = planned(786_000, big=None), planned(787_000, big=None)
    assert 0.99 * 2**32 < small.size < 2**32 < large.size
    assert (small.is_big, large.is_big) == (False, True)
    assert small.head[:4] == b"II*\0"
    assert large.head[:4] == b"II+\0"
    with pytest.raises(ValueError, match="do not fit in a classic TIFF"):
        planned(787_000, big=False)


def test_offsets_beyond_four_gib_are_read_by_gdal(tmp_path):
    found = planned(787_000, big=True)
    path = tmp_path / "hole.tif"
    with path.open("wb") as handle:  # a file with a hole: nothing is stored on the disk
        handle.write(found.head)
        handle.truncate(found.size)
    assert missing(path) is None
    with rasterio.open(path) as opened:
        last = opened.get_tag_item("BLOCK_OFFSET_63_63", "TIFF", bidx=1)
        # Four bytes of trailer end the file.
        assert int(last) + 787_000 + 4 == found.size
