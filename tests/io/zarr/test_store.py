"""What a store holds: layouts, labels, pyramids, and stores that cannot be used."""

import json

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  (the accessor .rio)
import xarray as xr
import zarr
from zarr_support import coordinate_image, write_array, write_coordinates

from geodino.errors import SourceError
from geodino.geo.validity import ReadRule
from geodino.io.raster import HandlePool, describe, read
from geodino.io.zarr.key import stamp
from geodino.io.zarr.store import describe_store

pytestmark = pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")

IMAGE = coordinate_image(48, 80)
TIMES = pd.DatetimeIndex(["2020-07-01 10:20:30", "2020-07-11", "NaT"])


def dataset(names=("B02", "B03", "B04"), dtype="uint16", **attributes):
    """Three dates of 48 x 80 pixels of 10 m, as a user of xarray has them."""
    values = np.stack([IMAGE[0] + 100 * t for t in range(3)]).astype(dtype)
    bands = {name: (("time", "y", "x"), values + i, attributes) for i, name in enumerate(names)}
    y = 5_400_000 - 5 - 10 * np.arange(48)
    x = 500_005 + 10 * np.arange(80)
    return xr.Dataset(bands, coords={"time": TIMES, "y": y, "x": x})


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_dataset_written_by_xarray_gives_a_raster_for_each_date(
    tmp_path, zarr_format, consolidated
):
    cube = dataset(long_name="reflectance").rio.write_crs("EPSG:32633")
    store = tmp_path / "c.zarr"
    chunks = {name: {"chunks": (1, 16, 32)} for name in cube}
    cube.to_zarr(store, zarr_format=zarr_format, consolidated=consolidated, encoding=chunks)
    found = describe_store(store)
    assert (found.skipped, found.notes) == ((), ())
    assert [r.path for r in found.rasters] == [f"{store}#B02,B03,B04@{t}" for t in range(3)]
    first, second, third = found.rasters
    assert (first.driver, first.dtype, first.count, first.block) == ("Zarr", "uint16", 3, (16, 32))
    assert first.descriptions == ("B02", "B03", "B04")
    assert first.grid.crs == "EPSG:32633"
    assert tuple(first.grid.transform[:6]) == (10, 0, 500_000, 0, -10, 5_400_000)
    assert (first.datetime, first.datetime_from) == ("2020-07-01T10:20:30", "time coordinate")
    assert second.datetime == "2020-07-11T00:00:00"
    assert (third.datetime, third.datetime_from) == (None, None)
    assert first.size > 0
    assert first.mtime_ns > 0
    with HandlePool() as pool:
        for date, raster in enumerate(found.rasters):
            assert describe(raster.path) == raster
            pixels, _ = read(pool, raster.path, rule=ReadRule(nodata="ignore"))
            expected = cube.isel(time=date).to_array().to_numpy()
            np.testing.assert_array_equal(pixels, expected)


@pytest.mark.parametrize(
    ("dtype", "fill"),
    [("uint16", 0), ("uint16", 65535), ("float32", 0), ("float32", np.nan), ("float32", -9999.5)],
)
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_fill_value_that_xarray_wrote_is_the_nodata_value(tmp_path, dtype, fill, zarr_format):
    cube = dataset(["B02"], dtype)
    # In format 2 this becomes the array's own fill value; in format 3 an attribute, in base 64
    # for floats.
    if zarr_format == 2:
        cube["B02"].encoding["_FillValue"] = fill
    else:
        cube["B02"].attrs["_FillValue"] = np.dtype(dtype).type(fill)
    cube.to_zarr(tmp_path / "c.zarr", zarr_format=zarr_format)
    np.testing.assert_equal(describe_store(tmp_path / "c.zarr").rasters[0].nodata, (float(fill),))


def test_nodata_in_attributes_is_understood_in_the_forms_that_occur(tmp_path):
    forms = {"nodata": -1, "missing_value": [7], "_FillValue": "NaN"}
    for key, value in forms.items():
        write_array(tmp_path / "c.zarr", key, IMAGE.astype("f4"), ("band", "y", "x"),
                    attributes={key: value})  # fmt: skip
    tags = {
        r.path.rpartition("#")[2]: r.nodata for r in describe_store(tmp_path / "c.zarr").rasters
    }
    np.testing.assert_equal(
        tags, {"nodata": (-1.0,) * 2, "missing_value": (7.0,) * 2, "_FillValue": (np.nan,) * 2}
    )


@pytest.mark.parametrize("dtype", ["u2", "f4"])
@pytest.mark.parametrize("key", ["nodata", "_FillValue", "scale_factor", "add_offset"])
def test_attributes_that_are_no_numbers_are_named(tmp_path, key, dtype):
    store = tmp_path / "d.zarr"
    write_array(store, "a", IMAGE.astype(dtype), ("band", "y", "x"), attributes={key: "many"})
    with pytest.raises(SourceError, match=rf"a: its attribute {key} is no number \('many'\)"):
        describe_store(store)


@pytest.mark.parametrize("texts", ["U3", "O"])
def test_bands_are_named_by_their_coordinate(tmp_path, texts):
    names = np.array(["B02", "B03"], dtype=texts)
    cube = xr.DataArray(IMAGE, dims=("band", "y", "x"), coords={"band": names}, name="s2")
    cube.to_dataset().to_zarr(tmp_path / "c.zarr", zarr_format=2)
    (info,) = describe_store(tmp_path / "c.zarr").rasters
    assert info.descriptions == ("B02", "B03")
    assert (info.datetime, info.grid.crs) == (None, None)


def test_bands_without_texts_have_no_names_but_a_long_name_each_will_do(tmp_path):
    store = tmp_path / "c.zarr"
    write_array(store, "band", np.array([1, 2]), ("band",))
    write_array(store, "plain", IMAGE, ("band", "y", "x"))
    write_array(store, "named", IMAGE, ("band", "y", "x"), attributes={"long_name": ["red", "nir"]})
    found = {r.path.rpartition("#")[2]: r.descriptions for r in describe_store(store).rasters}
    assert found == {"named": ("red", "nir"), "plain": (None, None)}


def test_a_single_time_beside_one_image_is_its_date(tmp_path):
    dataset().isel(time=0).to_zarr(tmp_path / "c.zarr")
    (info,) = describe_store(tmp_path / "c.zarr").rasters
    assert info.path.endswith("c.zarr#B02,B03,B04")
    assert info.datetime == "2020-07-01T10:20:30"


def test_times_that_cannot_be_decoded_are_told_and_the_rasters_stay(tmp_path):
    store = tmp_path / "c.zarr"
    write_array(store, "a", IMAGE, ("time", "y", "x"))
    write_array(store, "time", np.array([3, 4]), ("time",))
    found = describe_store(store)
    assert [r.datetime for r in found.rasters] == [None, None]
    assert any("its coordinate time is not read as dates" in note for note in found.notes)


def test_groups_of_different_pixel_size_are_different_rasters(tmp_path):
    store = tmp_path / "c.zarr"
    for group, step in (("r10m", 1), ("r20m", 2)):
        for band, name in enumerate(("B02", "B03")):
            write_array(
                store, f"measurements/{group}/{name}", IMAGE[band, ::step, ::step], ("y", "x")
            )
    found = describe_store(store).rasters
    assert [(r.path.rpartition("#")[2], r.grid.height) for r in found] == [
        ("measurements/r10m/B02,B03", 48),
        ("measurements/r20m/B02,B03", 24),
    ]
    only = describe_store(f"{store}#measurements/r20m").rasters
    assert only == (found[1],)
    assert describe_store(f"{store}#measurements").rasters == found
    assert describe(f"{store}#measurements/r10m/B03").descriptions == ("B03",)
    write_array(store, "dem", IMAGE[0], ("y", "x"))
    with pytest.raises(SourceError, match="dem cannot be read together with groups"):
        describe_store(f"{store}#measurements,dem")
    with pytest.raises(SourceError, match=r"holds 3 rasters. Name one of them, such as .*#dem"):
        describe(store)


PYRAMIDS = {
    "GeoZarr": {"layout": [{"asset": "0"}, {"asset": "1", "derived_from": "0"}]},
    "GeoZarr without origins": {"layout": [{"asset": "0"}, {"asset": "1"}]},
    "tile matrices": {"tile_matrix_set": {"tileMatrices": [{"id": "1"}, {"id": "0"}]}},
    "lists": [{"datasets": [{"path": "1"}, {"path": "0"}]}, "nonsense"],
}


@pytest.mark.parametrize("scales", PYRAMIDS.values(), ids=PYRAMIDS)
@pytest.mark.parametrize("nested", [True, False], ids=["groups", "arrays"])
def test_coarser_levels_of_a_pyramid_are_left_out_with_a_reason(tmp_path, scales, nested):
    store = tmp_path / "c.zarr"
    for level in (0, 1):
        write_array(store, f"map/{level}/a" if nested else f"map/{level}",
                    IMAGE[:, :: 1 + level, :: 1 + level], ("band", "y", "x"))  # fmt: skip
    zarr.open_group(store, path="map").update_attributes({"multiscales": scales})
    found = describe_store(store)
    assert [r.path for r in found.rasters] == [f"{store}#map/0" + ("/a" if nested else "")]
    ((path, why),) = found.skipped
    assert path == f"{store}#map/1"
    assert "is a level of a pyramid, derived from map/0" in why
    assert describe(f"{store}#map/1").grid.height == 24
    assert describe(f"{store}#map/1" + ("/a" if nested else "")).grid.height == 24


def test_classes_and_coordinates_are_not_bands(tmp_path):
    store = tmp_path / "c.zarr"
    write_array(store, "B02", IMAGE[0], ("y", "x"), attributes={"coordinates": "area"})
    write_array(store, "area", IMAGE[1], ("y", "x"))
    write_array(store, "lat", IMAGE[1], ("y", "x"), attributes={"standard_name": "latitude"})
    write_array(store, "SCL", IMAGE[1].astype("u1"), ("y", "x"), attributes={"flag_values": [0, 1]})
    found = describe_store(store)
    assert [r.descriptions for r in found.rasters] == [("B02",)]
    assert found.skipped == (
        (f"{store}#SCL", f"{store}#SCL holds classes (CF flags), not intensities. Name it to read it."),
    )  # fmt: skip
    assert describe(f"{store}#SCL").dtype == "uint8"


def test_variables_of_several_types_are_refused_until_some_are_named(tmp_path):
    store = tmp_path / "c.zarr"
    for name, dtype in (("B02", "u2"), ("B03", "u2"), ("SCL", "u1")):
        write_array(store, name, IMAGE[0].astype(dtype), ("y", "x"))
    write_array(store, "dem", IMAGE[:1].astype("f4"), ("band", "y", "x"))
    found = describe_store(store)
    assert [r.path for r in found.rasters] == [f"{store}#dem"]
    assert [path for path, _ in found.skipped] == [f"{store}#{n}" for n in ("B02", "B03", "SCL")]
    assert "mixes types (uint16: B02, B03; uint8: SCL). Name the variables" in found.skipped[0][1]
    assert describe(f"{store}#B02,B03").count == 2
    with pytest.raises(SourceError, match="mixes types"):
        describe(f"{store}#B02,SCL")
    with pytest.raises(SourceError, match="with a band axis is a raster alone"):
        describe(f"{store}#B02,dem")
    write_array(store, "B05", IMAGE[0, ::2, ::2], ("y", "x"))
    with pytest.raises(SourceError, match=r"differ in shape \(B02 48 x 80, B05 24 x 40\)"):
        describe(f"{store}#B02,B05")


REFUSED = {
    "unnamed": (IMAGE, None, {}, r"its dimensions \(without names\) cannot be told apart"),
    "strange": (IMAGE, ("a", "y", "x"), {}, r"its dimensions \(a, y, x\) cannot be told apart"),
    "twice": (IMAGE, ("lat", "y", "x"), {}, r"\(lat, y, x\) cannot be told apart"),
    "complex": (IMAGE * 1j, ("band", "y", "x"), {}, "it stores complex values, not intensities"),
    "bool": (IMAGE > 3, ("band", "y", "x"), {}, "it stores booleans, not intensities"),
    "unsigned": (IMAGE, ("band", "y", "x"), {"_Unsigned": "true"}, "_Unsigned gives its values"),
    "empty": (IMAGE[:, :0], ("band", "y", "x"), {}, r"it is empty \(shape 2 x 0 x 80\)"),
}


@pytest.mark.parametrize(("values", "dims", "attributes", "words"), REFUSED.values(), ids=REFUSED)
def test_arrays_that_are_no_images_are_refused_in_words(tmp_path, values, dims, attributes, words):
    store = tmp_path / "c.zarr"
    write_array(store, "a", values, dims, attributes=attributes)
    with pytest.raises(SourceError, match=rf"c\.zarr#a cannot be read as images: .*{words}"):
        describe(f"{store}#a")
    with pytest.raises(
        SourceError, match=rf"Found: a \({' x '.join(map(str, values.shape))} .*{words}"
    ):
        describe_store(store)
    write_array(store, "good", IMAGE, ("band", "y", "x"))
    found = describe_store(store)
    assert [r.path for r in found.rasters] == [f"{store}#good"]
    assert [path for path, _ in found.skipped] == [f"{store}#a"]


def test_spatial_dimensions_name_rows_and_columns_whatever_they_are_called(tmp_path):
    store = tmp_path / "c.zarr"
    write_array(store, "a", IMAGE, ("band", "row", "col"))
    zarr.open_group(store).update_attributes({"spatial:dimensions": ["row", "col"]})
    info = describe(store)
    assert (info.count, info.grid.height, info.grid.width) == (2, 48, 80)


def test_an_unknown_codec_is_refused_with_what_to_do(tmp_path):
    from zarr.codecs import ShardingCodec

    nested = ShardingCodec(chunk_shape=(1, 8, 8), codecs=[ShardingCodec(chunk_shape=(1, 4, 4))])
    zarr.create_array(tmp_path / "c.zarr", name="a", shape=(2, 16, 16), chunks=(1, 16, 16),
                      dtype="u2", serializer=nested, compressors=None,
                      dimension_names=("band", "y", "x"))  # fmt: skip
    with pytest.raises(SourceError, match=r"#a is stored with a codec that cannot be read \(shard"):
        describe(f"{tmp_path}/c.zarr#a")


def test_what_is_no_store_or_holds_nothing_is_said(tmp_path):
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    with pytest.raises(
        SourceError, match=r"holds nothing that can be read as images\. Found: no arr"
    ):
        describe_store(tmp_path / "empty.zarr")
    (tmp_path / "folder.zarr").mkdir()
    with pytest.raises(SourceError, match=r"folder\.zarr cannot be read as a zarr store: No group"):
        describe_store(tmp_path / "folder.zarr")
    write_coordinates(tmp_path / "c.zarr", 48, 80)
    with pytest.raises(SourceError, match=r"Found: x \(80 float64\), y \(48 float64\)"):
        describe_store(tmp_path / "c.zarr")
    (tmp_path / "c.zarr/y/zarr.json").write_text("{")
    with pytest.raises(SourceError, match=r"c\.zarr has unreadable metadata"):
        describe_store(tmp_path / "c.zarr")
    (tmp_path / "c.zarr/zarr.json").write_text("no json")
    with pytest.raises(SourceError, match=r"c\.zarr cannot be read as a zarr store"):
        describe_store(tmp_path / "c.zarr")


def test_an_array_with_broken_metadata_is_named_and_not_left_out(tmp_path):
    store = tmp_path / "c.zarr"
    for name in ("B02", "B03"):
        write_array(store, f"r10m/{name}", IMAGE[0], ("y", "x"))
    (store / "r10m/notes").mkdir()
    with pytest.warns(zarr.errors.ZarrUserWarning, match="notes is not recognized"):
        assert describe(store).count == 2
    (store / "r10m/B02/zarr.json").write_text('{"zarr_format": 3, "node_type": "array"}')
    with pytest.raises(SourceError, match=r"c\.zarr has unreadable metadata at r10m/B02"):
        describe_store(f"{store}#r10m/B02")
    with (
        pytest.warns(zarr.errors.ZarrUserWarning),
        pytest.raises(SourceError, match=r"c\.zarr has unreadable metadata at r10m/B02"),
    ):
        describe_store(store)
    assert describe(f"{store}#r10m/B03").count == 1


def test_metadata_that_change_change_the_stamp_and_pixels_do_not(tmp_path):
    store = tmp_path / "c.zarr"
    array = write_array(store, "g/a", IMAGE, ("band", "y", "x"), chunks=(1, 16, 16))
    before = describe(f"{store}#g/a")
    array[0, 0, 0] = 9
    assert describe(f"{store}#g/a") == before
    document = json.loads((store / "g/a/zarr.json").read_text())
    document["attributes"]["add_offset"] = -0.1
    (store / "g/a/zarr.json").write_text(json.dumps(document))
    after = describe(f"{store}#g/a")
    assert after.mtime_ns > before.mtime_ns
    assert after.offsets == (-0.1, -0.1)
    assert stamp(after.path) == (after.size, after.mtime_ns)
    assert stamp("https://example.org/c.zarr#a") == (0, 0)


def test_one_date_may_be_named_and_one_that_is_not_there_is_refused(tmp_path):
    dataset(["B02"]).to_zarr(tmp_path / "c.zarr")
    (info,) = describe_store(f"{tmp_path}/c.zarr#B02@1").rasters
    assert info.datetime == "2020-07-11T00:00:00"
    assert len(describe_store(f"{tmp_path}/c.zarr#B02").rasters) == 3
    with pytest.raises(SourceError, match=r"#B02@3 does not exist: its arrays have 3 date\(s\)"):
        describe_store(f"{tmp_path}/c.zarr#B02@3")
    with pytest.raises(SourceError, match=r"has no array 'B20'. Did you mean 'B02'"):
        describe_store(f"{tmp_path}/c.zarr#B20")
