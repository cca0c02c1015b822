"""Maps on disk: any shards, columns, parts and interruptions give the same bytes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from affine import Affine
from maps_support import Dizzy, Identity, picture, raster_of

from geodino.errors import SourceError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window
from geodino.infer.chips import Raster
from geodino.infer.cover import Cover
from geodino.infer.ground import Regrid
from geodino.infer.render import Rendering, regions
from geodino.io.cog.assemble import assemble
from geodino.io.cog.layout import Layer, Layout
from geodino.io.cog.parts import PartsWriter


class Heights:
    """The first channel as float32 with NaN, the second in hundredths."""

    layers = (
        Layer(name="height", count=1, dtype="float32", nodata=float("nan")),
        Layer(name="cm", count=1, dtype="int16", nodata=-32768.0),
    )

    def counts(self, values, valid):
        return {"valid": int(valid.sum())}

    def stored(self, values, valid):
        if values is None:
            values = np.zeros((2, *valid.shape), dtype=np.float32)
        return {
            "height": np.where(valid, values[:1], np.float32(np.nan)),
            "cm": np.where(valid, np.rint(100 * values[1:2]), -32768).astype(np.int16),
        }


def layout_of(grid):
    return Layout(grid=grid, block=16, side=32, levels=3)


def rendering(pixels, valid, predictor=None, *, chip=16, overlap=8, group=2, **options):
    raster = raster_of(pixels, valid)
    predictor = predictor or Dizzy()
    cover = Cover.of(
        raster.grid.height,
        raster.grid.width,
        chip=chip,
        overlap=overlap,
        align=predictor.align,
        group=group,
    )
    options = {"layout": layout_of(raster.grid), **options}
    return Rendering(raster=raster, predictor=predictor, product=Heights(), cover=cover, **options)


def render(job, folder, numbers=None, *, shard=(1, 1)):
    with (
        ThreadPoolExecutor(2) as threads,
        PartsWriter(
            folder, layout=job.layout, layers=job.product.layers, key={"a": 1}, shard=shard
        ) as parts,
    ):
        todo = range(len(job.layout)) if numbers is None else numbers
        left = [n for n in todo if n not in parts.committed]
        done = []
        job.run(parts, left, threads=threads, advance=done.append, facts={})
    return sum(done)


def bytes_of(job, folder, out, **options):
    for layer in job.product.layers:
        assemble(folder, out / f"{layer.name}.tif", layer, layout=job.layout, **options)
    return [(out / f"{layer.name}.tif").read_bytes() for layer in job.product.layers]


@pytest.fixture
def whole(tmp_path):
    pixels, valid = picture(100, 90, holes=0.2)
    job = rendering(pixels, valid)
    assert render(job, tmp_path / "whole") == 100 * 90
    return pixels, valid, bytes_of(job, tmp_path / "whole", tmp_path)


def test_the_identity_gives_the_raster_back(tmp_path):
    pixels, valid = picture(70, 50, holes=0.2)
    job = rendering(pixels, valid, Identity())
    render(job, tmp_path / "parts")
    bytes_of(job, tmp_path / "parts", tmp_path)
    with rasterio.open(tmp_path / "height.tif") as found:
        np.testing.assert_array_equal(found.read(1), np.where(valid, pixels[0], np.nan))
    with rasterio.open(tmp_path / "cm.tif") as found:
        expected = np.where(valid, np.rint(100 * pixels[1]), -32768)
        np.testing.assert_array_equal(found.read(1), expected)


@pytest.mark.parametrize("count", [2, 3, 7, 40])
def test_shards_change_no_byte(tmp_path, whole, count):
    pixels, valid, expected = whole
    job = rendering(pixels, valid)
    every = range(len(job.layout))
    for i in range(count):
        mine = every[len(every) * i // count : len(every) * (i + 1) // count]
        render(job, tmp_path / "shards", mine, shard=(i + 1, count))
    assert bytes_of(job, tmp_path / "shards", tmp_path) == expected


@pytest.mark.parametrize("columns", [1, 2])
def test_how_much_is_done_side_by_side_changes_no_byte(tmp_path, whole, columns):
    pixels, valid, expected = whole
    job = rendering(pixels, valid, columns=columns)
    render(job, tmp_path / "narrow")
    assert bytes_of(job, tmp_path / "narrow", tmp_path) == expected


def test_a_source_that_breaks_keeps_what_was_done_and_goes_on_to_the_same_bytes(
    tmp_path, whole, monkeypatch
):
    pixels, valid, expected = whole
    job = rendering(pixels, valid, columns=1)
    good = job.raster.read

    def broken(window):
        if window.bottom > 60:
            raise SourceError("row 60 is damaged")
        return good(window)

    object.__setattr__(job.raster, "read", broken)
    monkeypatch.setattr("geodino.infer.feed._ROWS", 8)
    with pytest.raises(SourceError, match="damaged"):
        render(job, tmp_path / "broken")
    object.__setattr__(job.raster, "read", good)
    again = render(job, tmp_path / "broken")
    assert 0 < again < 100 * 90
    assert bytes_of(job, tmp_path / "broken", tmp_path) == expected


def test_an_area_changes_no_pixel_in_it_and_leaves_nothing_outside(tmp_path, whole):
    pixels, valid, _ = whole
    wanted = np.zeros(valid.shape, dtype=bool)
    wanted[40:70, 5:33] = True
    job = rendering(pixels, valid, wanted=lambda w: wanted[w.slices])
    numbers = sorted(job.layout.covering(Window(40, 5, 30, 28)))
    render(job, tmp_path / "part", numbers)
    outside = [n for n in range(len(job.layout)) if n not in numbers]
    with rasterio.open(tmp_path / "height.tif") as found:
        expected = np.where(wanted, found.read(1), np.nan)
    bytes_of(job, tmp_path / "part", tmp_path, allow=outside)
    with rasterio.open(tmp_path / "height.tif") as found:
        np.testing.assert_array_equal(found.read(1), expected)


def test_a_digest_is_that_of_the_pixels_of_a_supertile(tmp_path):
    pixels, valid = picture(100, 90, holes=0.2)
    job = rendering(pixels, valid)
    folder = tmp_path / "parts"
    render(job, folder)
    with (
        ThreadPoolExecutor(1) as threads,
        PartsWriter(folder, layout=job.layout, layers=job.product.layers, key={"a": 1}) as parts,
    ):
        found = {n: one.digest for n, one in parts.committed.items()}
        assert {n: job.digest(n, threads=threads) for n in found} == found
        assert len(set(found.values())) == len(found) == len(job.layout)
        pixels[0, 50, 50] += 1
        valid[50, 50] = True
        changed = [n for n in found if job.digest(n, threads=threads) != found[n]]
    assert changed == [1 * job.layout.columns + 1]


def test_regions_are_rectangles_of_whole_supertiles():
    grid = Grid(None, Affine.identity(), width=90, height=100)
    layout = layout_of(grid)  # 4 rows of 3
    assert list(regions(layout, range(12), 9)) == [Window(0, 0, 100, 90)]
    assert list(regions(layout, range(12), 2)) == [
        Window(0, 0, 100, 32),
        Window(0, 32, 100, 58),
    ]
    assert sorted(regions(layout, range(2, 9), 9)) == [
        Window(0, 64, 32, 26),
        Window(32, 0, 64, 90),
    ]
    assert list(regions(layout, [0, 2], 9)) == [Window(0, 0, 32, 32), Window(0, 64, 32, 26)]


@pytest.mark.parametrize("factor", [2.0, 2.5, 3.0, 0.5])
def test_a_model_of_another_resolution_gives_a_map_on_the_raster_s_grid(tmp_path, factor):
    # A plane is what resampling to another grid and back keeps, away from the borders.
    rows, columns = np.mgrid[0:120, 0:90].astype(np.float32)
    pixels = np.stack([rows + 2 * columns, 0 * rows])
    valid = np.ones((120, 90), dtype=bool)
    valid[30:40, 20:50] = False
    raster = raster_of(pixels, valid)
    regrid = Regrid.to_gsd(raster.grid, factor * raster.grid.gsd_m[0])
    predictor = Identity()
    cover = Cover.of(regrid.model.height, regrid.model.width, chip=16, overlap=8, align=4)
    layout = layout_of(raster.grid)
    maps = []
    for name, side in (("wide", 9), ("narrow", 1)):
        job = Rendering(
            raster=raster,
            predictor=predictor,
            product=Heights(),
            cover=cover,
            layout=layout,
            regrid=regrid,
            columns=side,
        )
        assert render(job, tmp_path / name) == 120 * 90
        bytes_of(job, tmp_path / name, tmp_path)
        with rasterio.open(tmp_path / "height.tif") as found:
            maps.append(found.read(1))
    np.testing.assert_array_equal(*maps)
    np.testing.assert_array_equal(np.isfinite(maps[0]), valid)
    inner = np.zeros_like(valid)
    inner[8:-8, 8:-8] = True
    inner[20:50, 10:60] = False  # the mean fills holes before the model, as it should
    np.testing.assert_allclose(maps[0][inner], pixels[0][inner], atol=0.05 * factor)


def test_a_raster_without_a_place_has_no_resolution():
    grid = Grid(None, Affine.identity(), width=4, height=4)
    with pytest.raises(ValueError, match="without a place"):
        Regrid.to_gsd(grid, 1.0)
    assert isinstance(Raster(name="a", grid=grid, read=lambda w: None), Raster)
