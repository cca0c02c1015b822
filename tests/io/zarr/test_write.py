"""zarr stores that xarray and rioxarray understand."""

import numpy as np
import pytest
import rioxarray  # noqa: F401
import xarray as xr
import zarr
from affine import Affine

from geodino.errors import RunError
from geodino.geo.grid import Grid
from geodino.io.zarr.write import ZarrWriter

PLACE = Affine(9.6, 0, 500_000, 0, -9.6, 4_500_000)


def grid(height, width, transform=PLACE, crs="EPSG:32618"):
    return Grid(crs, transform, width=width, height=height)


def coordinates(height, width):
    return np.stack(np.mgrid[0:height, 0:width]).astype(np.float32)


def write(path, values, *, group="", place=None, rows=5, dtype=None, scales=None, sharded=True):
    dtype = dtype or str(values.dtype)
    nodata = -128.0 if dtype == "int8" else float("nan")
    with ZarrWriter(path, attributes={"a": 1}) as store:
        target = store.add(
            group, place or grid(*values.shape[1:]), bands=len(values), dtype=dtype, nodata=nodata,
            scales=scales, attributes={"long_name": "features"}, sharded=sharded,
        )  # fmt: skip
        for top in range(0, values.shape[1], rows):
            target.write(top, 0, values[:, top : top + rows])
        target.finish(attributes={"GEODINO_X": "y"})
        store.finish()
    return path


@pytest.mark.parametrize("rows", [3, 8, 16, 100])
def test_pixels_come_back_where_they_were_written(tmp_path, rows):
    values = coordinates(61, 83)
    found = xr.open_zarr(write(tmp_path / "a.zarr", values, rows=rows), chunks=None)
    np.testing.assert_array_equal(found["embedding"].values, values)
    assert found["embedding"].dims == ("band", "y", "x")
    assert found.attrs == {"a": 1}
    assert found["embedding"].attrs["GEODINO_X"] == "y"


def test_xarray_and_rioxarray_know_where_it_lies(tmp_path):
    found = xr.open_zarr(write(tmp_path / "a.zarr", coordinates(4, 6)), chunks=None)["embedding"]
    assert found.rio.crs == "EPSG:32618"
    assert found.rio.transform() == PLACE
    assert found.rio.transform(recalc=True).almost_equals(PLACE, 1e-6)
    # Coordinates are of pixel centres.
    assert found.x.values[0] == 500_004.8
    assert found.y.values[0] == 4_499_995.2
    assert found.x.attrs["standard_name"] == "projection_x_coordinate"
    assert np.isnan(found.rio.nodata)


def test_the_store_is_zarr_3_with_consolidated_metadata(tmp_path):
    path = write(tmp_path / "a.zarr", coordinates(4, 6))
    group = zarr.open_consolidated(path)
    assert group.metadata.zarr_format == 3
    assert set(group.array_keys()) == {"embedding", "band", "x", "y", "spatial_ref"}
    assert group["embedding"].metadata.dimension_names == ("band", "y", "x")


def test_features_too_large_for_one_chunk_are_cut_in_space_and_joined_to_shards(tmp_path):
    # 512 bands of float32: 32 x 32 pixels are 2 MiB, 64 x 64 would be 8.
    values = np.zeros((512, 40, 100), dtype=np.float32)
    values[:, 33, 70] = np.arange(512)
    path = write(tmp_path / "a.zarr", values)
    array = zarr.open_group(path)["embedding"]
    assert array.chunks == (512, 32, 32)
    assert array.shards == (512, 32, 128)
    np.testing.assert_array_equal(array[:, 33, 70], np.arange(512))
    path = write(tmp_path / "b.zarr", values, sharded=False)
    assert zarr.open_group(path)["embedding"].shards is None


def test_what_was_never_written_is_nodata(tmp_path):
    with ZarrWriter(tmp_path / "a.zarr", attributes={}) as store:
        target = store.add(
            "", grid(20, 20), bands=2, dtype="float32", nodata=float("nan"), attributes={}
        )
        target.write(3, 5, coordinates(4, 6))
        target.write(10, 12, coordinates(2, 2))
        target.finish(attributes={})
        store.finish()
    found = xr.open_zarr(tmp_path / "a.zarr", chunks=None)["embedding"].values
    np.testing.assert_array_equal(found[:, 3:7, 5:11], coordinates(4, 6))
    np.testing.assert_array_equal(found[:, 10:12, 12:14], coordinates(2, 2))
    assert np.isfinite(found).sum() == 2 * (24 + 4)


def test_int8_is_missing_where_it_is_missing_and_carries_its_scales(tmp_path):
    values = np.array([[[-127, 3], [-128, 5]], [[1, 2], [-128, 4]]], dtype=np.int8)
    path = write(tmp_path / "a.zarr", values, scales=[0.5, 2.0])
    found = xr.open_zarr(path, chunks=None)["embedding"]
    features = found * found.scale_factor
    np.testing.assert_array_equal(
        features.values, [[[-63.5, 1.5], [np.nan, 2.5]], [[2, 4], [np.nan, 8]]]
    )
    assert found.encoding["dtype"] == np.int8
    raw = xr.open_zarr(path, chunks=None, mask_and_scale=False)["embedding"]
    np.testing.assert_array_equal(raw.values, values)


def test_float16_is_stored_as_such(tmp_path):
    values = coordinates(3, 3).astype(np.float16)
    path = write(tmp_path / "a.zarr", values)
    assert zarr.open_group(path)["embedding"].dtype == np.float16
    np.testing.assert_array_equal(xr.open_zarr(path, chunks=None)["embedding"].values, values)


def test_maps_of_several_zones_are_groups_with_their_own_crs(tmp_path):
    with ZarrWriter(tmp_path / "a.zarr", attributes={}) as store:
        for crs in ("EPSG:32617", "EPSG:32618"):
            target = store.add(
                f"zone/{crs[5:]}", grid(3, 4, crs=crs), bands=2, dtype="float32",
                nodata=float("nan"), attributes={},
            )  # fmt: skip
            target.write(0, 0, coordinates(3, 4))
            target.finish(attributes={})
        store.finish()
    tree = xr.open_datatree(tmp_path / "a.zarr", engine="zarr")
    for crs in ("EPSG:32617", "EPSG:32618"):
        assert tree[f"zone/{crs[5:]}/embedding"].rio.crs == crs


def test_a_picture_without_a_place_has_no_crs(tmp_path):
    place = grid(3, 4, transform=Affine.scale(8), crs=None)
    found = xr.open_zarr(write(tmp_path / "a.zarr", coordinates(3, 4), place=place), chunks=None)
    assert found["embedding"].rio.crs is None
    np.testing.assert_array_equal(found.x.values, [4, 12, 20, 28])


def test_a_rotated_grid_is_refused(tmp_path):
    place = grid(3, 4, transform=PLACE @ Affine.rotation(10))
    with pytest.raises(RunError, match=r"rotated grid.*--out FILE\.tif"):
        write(tmp_path / "a.zarr", coordinates(3, 4), place=place)
    assert list(tmp_path.iterdir()) == []


def test_a_store_is_replaced_when_the_new_one_is_whole(tmp_path):
    path = write(tmp_path / "a.zarr", coordinates(3, 4))

    def job():
        with ZarrWriter(path, attributes={}) as store:
            store.add("", grid(9, 9), bands=2, dtype="float32", nodata=float("nan"), attributes={})
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        job()
    assert xr.open_zarr(path)["embedding"].shape == (2, 3, 4)
    write(path, coordinates(5, 6))
    assert xr.open_zarr(path)["embedding"].shape == (2, 5, 6)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zarr"]
