"""Spatial splits: blocks and buffers of ground, sites that are not cut, users' own polygons."""

import geopandas
import numpy as np
import pytest
import shapely
from affine import Affine
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod, Transformer
from scene_support import index_of
from shapely import box
from tests_support import at_once

from geodino.config import RecipeError
from geodino.data.blocks import make_split
from geodino.data.labels.config import LabelsConfig
from geodino.data.labels.index import label_index
from geodino.data.labels.pairs import labelled_ground, pair
from geodino.data.split_file import load_split
from geodino.data.splits import BUFFER, NAMES, SplitConfig, ordered
from geodino.errors import SourceError
from geodino.geo.grid import Grid
from geodino.geo.windows import Window

UTM = "EPSG:32632"
LEFT, TOP = 500_000.0, 5_400_000.0
TO_LONLAT = Transformer.from_crs(UTM, "OGC:CRS84", always_xy=True)


def ground(*boxes):
    """Squares (west, south, side), metres from the corner, in longitude and latitude."""
    shapes = np.empty(len(boxes), dtype=object)
    shapes[:] = [
        box(LEFT + x, TOP + y, LEFT + x + side, TOP + y + side).segmentize(side / 4)
        for x, y, side in boxes
    ]
    return shapely.transform(shapes, TO_LONLAT.transform, interleaved=False)


def split_of(*boxes, pixel_m=1.0, **declared):
    return make_split(ground(*boxes), SplitConfig(**declared), pixel_m=pixel_m)


def grid(width=100, height=100, *, pixel_m=10.0, x=0.0, y=1000.0, crs=UTM):
    return Grid(crs, Affine(pixel_m, 0, LEFT + x, 0, -pixel_m, TOP + y), width, height)


def masks(split, of):
    window = Window(0, 0, of.height, of.width)
    return {name: split.mask(of, window, name) for name in NAMES}


def area(split, name):
    return sum(g.area for g, word in zip(split.geometry, split.split, strict=True) if word == name)


def test_blocks_get_their_shares_and_every_pixel_at_most_one_split():
    split = split_of((0, 0, 1000), block_m=100.0, buffer_m=0.0)
    assert split.crs == UTM
    found = masks(split, grid())
    assert (sum(mask.astype(int) for mask in found.values()) == 1).all()
    for name, share in (("train", 0.6), ("val", 0.1), ("calibration", 0.15), ("test", 0.15)):
        assert found[name].mean() == pytest.approx(share, abs=0.011)
    # Whole blocks of ten by ten pixels.
    blocks = split.rows(grid(), Window(0, 0, 100, 100)).reshape(10, 10, 10, 10)
    assert (blocks == blocks[:, :1, :, :1]).all()
    assert len(split.sites("train")) == 60
    assert "100 blocks of 100 m in EPSG:32632, seed 0" in split.notes[0]


def test_a_strip_that_reaches_into_the_next_block_is_no_block_of_its_own():
    split = split_of((0, 0, 1003), block_m=100.0, buffer_m=0.0)
    assert "100 blocks of 100 m" in split.notes[0]
    assert sum(area(split, name) for name in NAMES) == pytest.approx(1003**2, rel=1e-6)


def test_the_same_seed_gives_the_same_split_and_another_another():
    declared = {"block_m": 100.0, "buffer_m": 10.0}
    one, two = (split_of((0, 0, 1000), **declared) for _ in range(2))
    assert one.split == two.split
    assert shapely.equals_exact(one.geometry, two.geometry, 0).all()
    assert split_of((0, 0, 1000), seed=1, **declared).split != one.split


def test_the_order_of_images_does_not_matter():
    squares = [(x, y, 250) for x in range(0, 1000, 250) for y in range(0, 1000, 250)]
    one = split_of(*squares, block_m=200.0, buffer_m=10.0)
    other = split_of(*squares[::-1], block_m=200.0, buffer_m=10.0)
    found, again = (masks(split, grid()) for split in (one, other))
    for name in NAMES:
        np.testing.assert_array_equal(found[name], again[name])


@settings(max_examples=25)
@given(
    squares=st.lists(
        st.tuples(st.integers(0, 700), st.integers(0, 700), st.sampled_from([40, 150, 300])),
        min_size=2, max_size=8,
    ),
    block=st.sampled_from([80.0, 130.0, 210.0]),
    buffer=st.sampled_from([0.0, 12.0, 35.0]),
    seed=st.integers(0, 5),
)  # fmt: skip
def test_no_ground_in_use_lies_within_the_buffer_of_a_block_of_another_split(
    squares, block, buffer, seed
):
    try:
        split = split_of(*squares, block_m=block, buffer_m=buffer, seed=seed)
    except SourceError as error:
        assert "training needs both" in str(error)  # noqa: PT017  (too little ground is refused)
        return
    # A block is what is in use of it and what of it is buffer: rows of one site.
    sites = sorted(set(split.site))
    whole, words = [], []
    for site in sites:
        rows = [i for i, name in enumerate(split.site) if name == site]
        used = {split.split[i] for i in rows} - {BUFFER}
        whole.append(shapely.union_all(split.geometry[rows]))
        words.append(used.pop() if used else None)
        assert not used
    of = grid(pixel_m=7.0, width=150, height=150, y=1030.0)
    down, across = np.mgrid[0:150, 0:150]
    centres = shapely.points(LEFT + 7 * (across + 0.5), TOP + 1030.0 - 7 * (down + 0.5))
    for name, mask in masks(split, of).items():
        for site, word in zip(whole, words, strict=True):
            if word not in (name, None) and mask.any():
                assert shapely.distance(centres[mask], site).min() >= buffer
    # Nothing of the ground is lost, only put aside.
    total = shapely.union_all(
        [box(LEFT + x, TOP + y, LEFT + x + s, TOP + y + s) for x, y, s in squares]
    ).area
    assert sum(area(split, n) for n in (*NAMES, BUFFER)) == pytest.approx(total, rel=1e-3)


def test_small_separate_sites_are_never_cut():
    # 20 m plots, every second one across the edge of a block.
    plots = [(97.0 * i, 61.0 * (i % 7), 20) for i in range(40)]
    split = split_of(*plots, block_m=200.0, buffer_m=10.0)
    assert BUFFER not in split.split
    assert "40 sites are not cut" in split.notes[0]
    for x, y, _ in plots:
        plot = grid(20, 20, pixel_m=1.0, x=x, y=y + 20)
        assert max(mask.mean() for mask in masks(split, plot).values()) == 1
        assert split.of(plot) in NAMES


def test_a_site_that_several_images_cover_is_one_site():
    # Two dates and a shifted copy of each of 12 plots: in no split twice.
    plots = [(300.0 * i + d, d, 30) for i in range(12) for d in (0, 0, 9)]
    split = split_of(*plots, block_m=100.0, buffer_m=5.0)
    assert len(split.split) == 12
    assert BUFFER not in split.split


def test_block_and_buffer_are_chosen_from_the_ground_and_stated():
    # 2 km square: blocks of 1000 m would be 4 and of 500 m 16, of 200 m they are 100.
    split = split_of((0, 0, 2000), pixel_m=1.0)
    assert "100 blocks of 200 m" in split.notes[0]
    assert "within 10 m of another split" in split.notes[1]
    # Eighteen plots: each is smaller than a block, none is cut.
    plots = [(700.0 * (i % 5), 900.0 * (i // 5), 20) for i in range(18)]
    split = split_of(*plots, pixel_m=0.1)
    assert "18 sites are not cut" in split.notes[0]
    assert {split.of(grid(20, 20, pixel_m=1.0, x=x, y=y + 20)) for x, y, _ in plots} == set(NAMES)


def test_two_blocks_are_for_train_and_val_and_one_is_refused():
    split = split_of((0, 0, 50), (500, 0, 50), block_m=100.0)
    assert sorted(split.split) == ["train", "val"]
    assert "there is no ground for calibration and test: too few blocks" in split.notes
    with pytest.raises(SourceError, match="All labelled ground lies in one block of 100 m"):
        split_of((0, 0, 50), block_m=100.0)
    with pytest.raises(SourceError, match="none leaves ground for"):
        split_of((0, 0, 200), block_m=100.0, buffer_m=101.0)


def test_ground_in_several_zones_is_split_in_an_equal_area_system_with_no_shorter_buffer():
    shapes = np.empty(12, dtype=object)
    shapes[:] = [box(8 * i, 60, 8 * i + 0.05, 60.025) for i in range(12)]
    split = make_split(shapes, SplitConfig(block_m=1000.0, buffer_m=100.0), pixel_m=10.0)
    assert split.crs == "EPSG:6933"
    train = shapely.union_all(split.geometry[[w == "train" for w in split.split]])
    to_6933 = Transformer.from_crs("OGC:CRS84", "EPSG:6933", always_xy=True)
    near = 0
    for name in ("val", "calibration", "test"):
        others = shapely.union_all(split.geometry[[w == name for w in split.split]])
        gap = shapely.shortest_line(train, others)
        (x0, y0), (x1, y1) = shapely.get_coordinates(gap)
        lon, lat = to_6933.transform([x0, x1], [y0, y1], direction="INVERSE")
        metres = Geod(ellps="WGS84").inv(lon[0], lat[0], lon[1], lat[1])[2]
        near += metres < 1000
        assert metres >= 100
    assert near


def test_masks_do_not_depend_on_how_windows_are_cut_and_hold_in_any_crs():
    split = split_of((0, 0, 1000), block_m=150.0, buffer_m=20.0)
    lon, lat = TO_LONLAT.transform(LEFT, TOP + 1000)
    degrees = Grid("EPSG:4326", Affine(1e-4, 0, lon, 0, -1e-4, lat), 120, 80)
    for of in (grid(), degrees):
        whole = split.rows(of, Window(0, 0, of.height, of.width))
        assert len(np.unique(whole)) > 20
        for top, left, height, width in ((0, 0, 1, 1), (13, 7, 40, 60), (60, 80, 20, 20)):
            window = Window(top, left, height, width)
            np.testing.assert_array_equal(split.rows(of, window), whole[window.slices])


def test_threads_that_ask_one_split_at_once_get_what_one_thread_gets():
    turn = np.linspace(0, 2 * np.pi, 2000, endpoint=False)
    reach = 60 + 9 * np.sin(40 * turn)
    star = np.column_stack([reach * np.cos(turn), reach * np.sin(turn)])
    middles = [(x, y) for y in (60, 180) for x in (60, 180)]
    stars = [shapely.Polygon(star + np.array([LEFT + x, TOP - y])) for x, y in middles]
    of = grid(240, 240, pixel_m=1.0, y=0.0)
    windows = [Window(top, left, 60, 60) for top in range(0, 240, 60) for left in range(0, 240, 60)]

    def asked(split):
        return np.stack([split.rows(of, window) for window in windows])

    def new():
        # Threads must meet polygons that nothing has looked at yet: that is where GEOS crashed.
        fresh = shapely.from_wkb(shapely.to_wkb(stars))
        return ordered(UTM, fresh, ["train"] * 4, ["a", "b", "c", "d"], notes=())

    expected = asked(new())
    assert set(np.unique(expected)) == {-1, 0, 1, 2, 3}
    for split in (new(), new(), new()):
        for found in at_once(lambda split=split: asked(split), threads=8):
            np.testing.assert_array_equal(found, expected)
        assert not shapely.is_prepared(split.geometry).any()


def test_a_tile_in_several_splits_has_none_and_its_shares_are_told():
    split = split_of((0, 0, 400), block_m=100.0, buffer_m=0.0)
    assert split.of(grid(40, 40, x=0, y=400)) is None
    shares = split.shares(grid(40, 40, x=0, y=400))
    assert sum(shares.values()) == pytest.approx(1, abs=1e-3)
    assert split.shares(grid(10, 10, x=5000)) == {}
    assert split.of(grid(10, 10, x=5000)) is None
    inner = grid(4, 4, x=20, y=80)
    assert split.shares(inner) == {split.of(inner): pytest.approx(1)}


def test_a_split_is_saved_and_read_back_whole(tmp_path):
    split = split_of((0, 0, 1000), block_m=150.0, buffer_m=20.0)
    split.save(tmp_path / "split.parquet")
    again = load_split(tmp_path / "split.parquet")
    assert (again.crs, again.split, again.site) == (split.crs, split.split, split.site)
    assert shapely.equals_exact(again.geometry, split.geometry, 0).all()
    frame = geopandas.read_parquet(tmp_path / "split.parquet")
    assert set(frame["split"]) == {*NAMES, BUFFER}


def own(path, words, **columns):
    shapes = [box(LEFT + 100 * i, TOP, LEFT + 100 * i + 120, TOP + 100) for i in range(len(words))]
    frame = geopandas.GeoDataFrame({"split": words, **columns}, geometry=shapes, crs=UTM)
    frame.to_crs("EPSG:4326").to_file(path)
    return path


def test_a_users_polygons_are_taken_and_where_they_overlap_the_buffer_and_the_test_hold(tmp_path):
    path = own(tmp_path / "geometries.geojson", ["train", "test", "val", "buffer", "train"])
    split = load_split(path)
    found = masks(split, grid(50, 10, x=0, y=100))
    # Polygons of 120 m overlap the next by 20 m, which is two pixels of 10 m.
    row = [next((n[0] for n in NAMES if found[n][5, i]), ".") for i in range(52 - 2)]
    assert "".join(row) == "t" * 10 + "t" * 12 + "v" * 8 + "." * 12 + "t" * 8
    assert found["train"][5, :10].all()
    assert found["test"][5, 10:22].all()
    assert not found["calibration"].any()
    assert split.sites("train") == ("0", "4")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["train", "vall"], r"'vall' in the column 'split' .*Did you mean 'val'"),
        (["train", "test"], "has no polygon of val, and training needs both"),
        (["val"], "has no polygon of train"),
    ],
)
def test_a_users_file_that_cannot_be_used_is_refused(tmp_path, words, message):
    with pytest.raises(SourceError, match=message):
        load_split(own(tmp_path / "s.geojson", words))


def test_a_file_without_the_column_or_with_broken_polygons_is_refused(tmp_path):
    shapes = [box(0, 0, 1, 1), shapely.Polygon([(0, 0), (1, 1), (1, 0), (0, 1)])]
    frame = geopandas.GeoDataFrame({"set": ["train", "val"]}, geometry=shapes, crs=UTM)
    frame.to_file(tmp_path / "a.gpkg")
    with pytest.raises(SourceError, match="has no column 'split'; it has set, geometry"):
        load_split(tmp_path / "a.gpkg")
    frame.rename(columns={"set": "split"}).to_file(tmp_path / "b.gpkg")
    with pytest.raises(
        SourceError, match="1 of 2 geometries are no valid polygons, the first in row 1"
    ):
        load_split(tmp_path / "b.gpkg")


def test_shares_that_do_not_sum_to_one_are_refused():
    with pytest.raises(RecipeError, match=r"must sum to 1, not 1\.1"):
        SplitConfig.parse({"shares": {"train": 0.7}}, source="x.yaml")
    with pytest.raises(RecipeError, match="must be 'auto' or above 0"):
        SplitConfig.parse({"block_m": 0}, source="x.yaml")


def test_real_plots_are_sites_of_their_own_in_all_four_splits(shared_data):
    images = index_of(shared_data / "canopy/idtrees/RGB")
    labels = label_index(
        shared_data / "canopy/idtrees/CHM", LabelsConfig(unit="m"), threads=1
    ).tiles
    pairs = pair(images, labels, order="path")
    split = make_split(labelled_ground(images, labels, pairs), SplitConfig(), pixel_m=0.1)
    assert "18 sites are not cut" in split.notes[0]
    of = [split.of(tile.grid) for tile in images.tiles]
    assert set(of) == set(NAMES)
    assert of.count("train") >= 8
    for tile, name in zip(images.tiles, of, strict=True):
        mask = split.mask(tile.grid, Window(0, 0, tile.height, tile.width), name)
        assert mask.mean() > 0.999
