import hashlib
import os
import time

import numpy as np
import pytest
import rasterio
import xarray

from geodino.data.config import DataConfig
from geodino.data.generated import worlds as generated
from geodino.data.generated.worlds import materialise, world_names, write_world
from geodino.data.index import build_index
from geodino.errors import RunError, SourceError

TIFF_WORLDS = ("demo", "mixed", "s2", "heights", "changes")


@pytest.fixture(scope="module")
def worlds(tmp_path_factory):
    """Every world, written when it is asked for first."""
    folder, made = tmp_path_factory.mktemp("worlds"), {}

    def world(name):
        if name not in made:
            made[name] = write_world(name, folder / name)
        return made[name]

    return world


def contents(folder):
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest()
        for p in sorted(folder.rglob("*"))
        if p.is_file()
    }


def test_every_world_has_a_name_and_a_sentence():
    names = world_names()
    assert {"demo", "mixed", "s2", "s2-safe", "landsat", "cube", "heights"} <= set(names)
    assert all(text.endswith(".") and len(text) > 30 for text in names.values())


@pytest.mark.parametrize("name", list(world_names()))
def test_every_world_is_written(name, worlds):
    assert worlds(name).exists()


@pytest.mark.parametrize("name", ["landsat", "cube", "s2-safe"])
def test_a_world_stays_the_same_to_the_byte(name, worlds, tmp_path):
    tiles = worlds(name)
    again = write_world(f"world:{name}", tmp_path)
    assert contents(again) == contents(tiles)


@pytest.mark.parametrize("name", TIFF_WORLDS)
def test_the_index_reads_what_a_world_offers_as_tiles(name, worlds):
    index = build_index(worlds(name), DataConfig(), threads=1)
    assert not index.bad
    assert len(index.tiles) >= 4
    assert len(index.bands) == (12 if name in ("s2", "changes") else 3)


def test_the_demo_has_one_collar(worlds):
    valid = []
    for path in sorted(worlds("demo").glob("*.tif")):
        with rasterio.open(path) as got:
            assert (got.count, got.width, got.height) == (3, 512, 512)
            valid.append((got.dataset_mask() > 0).mean())
    assert len(valid) == 8
    assert sum(share < 0.8 for share in valid) == 1
    assert sum(share > 0.99 for share in valid) == 7


def test_the_mixed_world_marks_missing_pixels_in_many_ways_in_two_zones(worlds):
    tiles = worlds("mixed")
    ways, zones = {}, set()
    for path in sorted(tiles.glob("*.tif")):
        with rasterio.open(path) as got:
            ways[path.name.rsplit("_", 1)[0]] = (
                {flag.name for flag in got.mask_flag_enums[0]}, got.count,
            )  # fmt: skip
            zones.add(got.crs.to_epsg())
            assert path.stem.endswith(f"{got.crs.to_epsg()}")
    assert zones == {32632, 32633}
    assert ways["plain"] == ways["collar_untagged"] == ({"all_valid"}, 3)
    assert ways["collar_nodata_0"] == ({"nodata"}, 3)
    assert ways["internal_mask"] == ({"per_dataset"}, 3)
    assert ways["alpha"] == ({"per_dataset", "alpha"}, 4)
    with rasterio.open(tiles.parent / "float32" / "nan_32632.tif") as got:
        assert got.dtypes[0] == "float32"
        assert np.isnan(got.read(1)).mean() == pytest.approx(0.2, abs=1e-4)


def test_the_two_sentinel_products_store_one_place_with_two_offsets(worlds):
    products = sorted(worlds("s2-safe").glob("*.SAFE"))
    assert [p.name[27:32] for p in products] == ["N0214", "N0509"]
    darkest = []
    for product in products:
        (blue,) = product.glob("GRANULE/*/IMG_DATA/R10m/*_B02_10m.jp2")
        with rasterio.open(blue) as got:
            pixels = got.read(1)
            darkest.append(int(pixels[pixels > 0].min()))
            assert (pixels == 0).mean() > 0.04
    assert darkest[0] < 500
    assert darkest[1] > 1000


def test_one_of_the_landsat_products_is_cloudy(worlds):
    shares = []
    for path in sorted(worlds("landsat").glob("*/*_QA_PIXEL.TIF")):
        with rasterio.open(path) as got:
            shares.append(float(((got.read(1) & 8) > 0).mean()))
    assert shares[0] == 0
    assert 0.15 < shares[1] < 0.6


def test_the_cube_has_four_dates(worlds):
    with xarray.open_zarr(worlds("cube"), decode_coords="all") as got:
        assert dict(got["image"].sizes) == {"time": 4, "band": 12, "y": 256, "x": 256}


def test_heights_lie_on_the_grids_of_their_images(worlds):
    tiles = worlds("heights")
    names = sorted(p.stem for p in tiles.glob("*.tif"))
    assert len(names) == 6
    for name in names:
        with (
            rasterio.open(tiles / f"{name}.tif") as image,
            rasterio.open(tiles.parent / "heights" / f"{name}.tif") as height,
        ):
            assert (image.transform, image.shape) == (height.transform, height.shape)
        for kind in ("buildings", "trees"):
            assert (tiles.parent / kind / f"{name}.geojson").exists()


def test_a_world_is_made_once_and_appears_whole(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODINO_CACHE", str(tmp_path))
    first = materialise("landsat")
    stamp = max(p.stat().st_mtime_ns for p in first.rglob("*"))
    time.sleep(0.01)
    assert materialise("world:landsat") == first
    assert max(p.stat().st_mtime_ns for p in first.rglob("*")) == stamp
    assert [p.name for p in (tmp_path / "world").iterdir()] == [first.name]
    monkeypatch.setattr(generated, "VERSION", generated.VERSION + 1)
    assert materialise("landsat") != first


def test_a_world_that_fails_half_way_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODINO_CACHE", str(tmp_path))

    def half(folder):
        (folder / "a.tif").write_text("half")
        raise OSError(28, os.strerror(28))

    monkeypatch.setitem(
        generated._WORLDS, "demo", generated._World(about="Half.", write=half, tiles=".")
    )
    with pytest.raises(RunError, match="disk is full"):
        materialise("demo")
    assert not list((tmp_path / "world").iterdir())


def test_a_world_made_by_another_process_meanwhile_is_taken(tmp_path, monkeypatch):
    monkeypatch.setenv("GEODINO_CACHE", str(tmp_path))
    first = materialise("landsat")

    def race(folder):
        # The other process has just finished.
        (folder / "mine").write_text("mine")
        target = tmp_path / "world" / first.name
        target.mkdir()
        (target / "theirs").write_text("theirs")

    for path in sorted(first.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    first.rmdir()
    monkeypatch.setitem(
        generated._WORLDS, "landsat", generated._World(about="Race.", write=race, tiles=".")
    )
    assert [p.name for p in materialise("landsat").iterdir()] == ["theirs"]
    assert len(list((tmp_path / "world").iterdir())) == 1


def test_the_cache_follows_the_users_settings(tmp_path, monkeypatch):
    monkeypatch.delenv("GEODINO_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert materialise("landsat").is_relative_to(tmp_path / "xdg" / "geodino" / "world")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert materialise("landsat").is_relative_to(tmp_path / "home" / ".cache" / "geodino")


def test_an_unknown_world_names_the_nearest_and_all(tmp_path):
    for call in (materialise, lambda name: write_world(name, tmp_path / "x")):
        with pytest.raises(SourceError, match=r"no generated world 'hights'.*Did you mean 'heights'.*demo, mixed"):  # fmt: skip
            call("world:hights")
    assert not (tmp_path / "x").exists()
