"""Several dates of one place in one sample: who belongs together, what is cut, what is refused."""

import numpy as np
import pytest
import rasterio
from affine import Affine

from geodino.data.config import DataConfig
from geodino.data.cuts import shapes_of
from geodino.data.dates import companions, dates_of_crops
from geodino.data.index import TileReader, build_index
from geodino.data.loader import Loader, LoaderConfig
from geodino.data.order import Order, OrderConfig
from geodino.data.view_plan import draw_views
from geodino.data.views_config import ViewsConfig
from geodino.errors import SourceError
from geodino.io.raster import HandlePool


def write(path, value, *, left=500_000, side=64):
    """A date: every pixel holds ``value`` in its first band and its own row in its second."""
    pixels = np.empty((2, side, side), dtype=np.uint8)
    pixels[0], pixels[1] = value, np.arange(side)[:, None] + 1
    with rasterio.open(
        path, "w", driver="GTiff", count=2, height=side, width=side, dtype="uint8",
        crs="EPSG:32618", transform=Affine(10, 0, left, 0, -10, 4_500_000),
    ) as out:  # fmt: skip
        out.write(pixels)


@pytest.fixture
def archive(tmp_path):
    """Place A (at 500000) at three dates 11, 12, 13; place B at two, 21 and 22."""
    for value in (11, 12, 13):
        write(tmp_path / f"a{value}.tif", value)
    for value in (21, 22):
        write(tmp_path / f"b{value}.tif", value, left=600_000)
    return build_index(tmp_path, DataConfig(), threads=1)


def test_companions_are_other_dates_of_the_same_place_and_change_from_epoch_to_epoch(archive):
    drawn, note = companions(archive, 2, seed=0)
    assert note == "each sample shows 2 dates of one of 2 places"
    seen = {tile: {drawn(epoch, tile) for epoch in range(40)} for tile in range(5)}
    assert seen[0] == {(1,), (2,)}
    assert seen[1] == {(0,), (2,)}
    assert seen[3] == {(4,)}
    assert drawn(7, 0) == companions(archive, 2, seed=0)[0](7, 0)


def test_a_place_with_fewer_dates_than_asked_repeats_them_and_it_is_said(archive):
    drawn, note = companions(archive, 3, seed=0)
    assert "1 places have fewer dates, which are repeated" in note
    assert sorted(drawn(0, 0)) == [1, 2]
    assert drawn(0, 3) == (4, 4)


def test_tiles_of_different_grids_are_no_dates_of_one_place(tmp_path):
    write(tmp_path / "a.tif", 1)
    write(tmp_path / "b.tif", 2, left=500_010)
    index = build_index(tmp_path, DataConfig(), threads=1)
    with pytest.raises(SourceError, match="no two of the 2 tiles lie on exactly one grid"):
        companions(index, 2, seed=0)


def test_the_two_global_crops_show_two_dates():
    drawn = dates_of_crops(0, 5, samples=200, crops=4, dates=3)
    assert (drawn[:, 0] != drawn[:, 1]).all()
    assert set(drawn.ravel()) == {0, 1, 2}
    np.testing.assert_array_equal(drawn[7:9], dates_of_crops(0, 12, samples=2, crops=4, dates=3))
    assert not dates_of_crops(0, 5, samples=3, crops=4, dates=1).any()


def test_no_crop_crosses_from_one_date_to_another():
    config = ViewsConfig(global_size=32, local_size=16, local_count=2)
    valid = np.ones((50, 3 * 40, 40), dtype=bool)
    valid[:, 40:60] = False
    plan = draw_views(config, seed=0, first=0, valid=valid, rgb=False, dates=3)
    top, _, height, _ = plan.boxes.numpy().reshape(-1, 4).T
    np.testing.assert_array_equal(top // 40, (top + height - 1) // 40)
    one = draw_views(config, seed=0, first=0, valid=valid[:, :40], rgb=False)
    # Dates move crops and change nothing else, where all pixels are valid.
    first = plan.boxes.numpy().copy()
    first[..., 0] %= 40
    kept = (top // 40 != 1).reshape(first.shape[:2])
    np.testing.assert_array_equal(first[kept], one.boxes.numpy()[kept])


@pytest.mark.parametrize("budget", [0, 2**20])
def test_a_batch_holds_the_same_ground_at_every_date(archive, budget):
    order = Order(
        shapes_of(archive),
        OrderConfig(
            seed=0, batch=4, chip=16, super_window=32, chips_per_window=4, budget_bytes=budget
        ),
    )
    drawn, _ = companions(archive, 2, seed=0)
    config = LoaderConfig(min_valid=0.0, threads=2, prefetch=2)
    with (
        HandlePool() as pool,
        Loader(order, TileReader(archive, pool), config, companions=drawn) as loader,
    ):
        batches = list(loader.batches(0, 12))
    seen = set()
    for batch in batches:
        pixels = batch.pixels.numpy()
        assert pixels.shape == (4, 2, 32, 16)
        assert batch.valid.all()
        for sample, (tile, window) in zip(pixels, batch.source, strict=True):
            one, other = sample[:, :16], sample[:, 16:]
            np.testing.assert_array_equal(one[1], other[1])
            assert one[1, 0, 0] == window.top + 1
            assert one[0, 0, 0] == (11, 12, 13, 21, 22)[tile]
            assert one[0, 0, 0] // 10 == other[0, 0, 0] // 10
            assert one[0, 0, 0] != other[0, 0, 0]
            seen.add((int(one[0, 0, 0]), int(other[0, 0, 0])))
    assert {a for a, _ in seen} == {11, 12, 13, 21, 22}
