"""Masks, class rasters and polygons on images of any source, and which ground is for what."""

import geopandas
import numpy as np
import pytest
import rasterio
import shapely
from affine import Affine
from PIL import Image

from geodino.data.config import DataConfig
from geodino.data.labelled.classes import ClassLabelsConfig, ClassTable, default_colours
from geodino.data.labelled.open_classes import open_classes
from geodino.data.labelled.sets import IGNORED
from geodino.data.splits import SharesConfig, SplitConfig
from geodino.errors import RecipeError, SourceError
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool

SIDE = 32
TWO = {"water": 1, "land": (2, 3)}
SPLIT = SplitConfig(shares=SharesConfig(train=0.6, val=0.2, calibration=0.0, test=0.2))


@pytest.fixture
def pool():
    with HandlePool() as pool:
        yield pool


def tif(path, array, *, east=500_000.0, north=5_400_000.0, gsd=1.0, crs="EPSG:32632", **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    array = array if array.ndim == 3 else array[None]
    with rasterio.open(
        path, "w", driver="GTiff", count=len(array), height=array.shape[1], width=array.shape[2],
        dtype=array.dtype, crs=crs, transform=Affine(gsd, 0, east, 0, -gsd, north), **more,
    ) as file:  # fmt: skip
        file.write(array)


def rgb(value=90):
    return np.full((3, SIDE, SIDE), value, np.uint8)


def halves():
    """The left half 1, the right half 3, one corner 0."""
    mask = np.ones((SIDE, SIDE), np.uint8)
    mask[:, SIDE // 2 :] = 3
    mask[0, 0] = 0
    return mask


def placed(root, count=6, mask=None, **more):
    """Images far from each other, with masks of the same names."""
    for number in range(count):
        east = 500_000.0 + 1_000 * number
        tif(root / "images" / f"i{number}.tif", rgb(), east=east)
        tif(
            root / "masks" / f"i{number}.tif", halves() if mask is None else mask, east=east, **more
        )
    return root


def opened(root, pool, *, labels="masks", split=None, **config):
    config.setdefault("classes", TWO)
    config.setdefault("ignored", (0,))
    return open_classes(
        str(root / "images"),
        str(root / labels),
        config=ClassLabelsConfig(**config),
        data=DataConfig(threads=1),
        split=split,
        split_config=SPLIT,
        pool=pool,
    )


def test_masks_of_the_images_stems_give_declared_classes(tmp_path, pool):
    found = opened(placed(tmp_path), pool)
    assert found.layout == "masks"
    assert found.set.facts.classes == ("water", "land")
    key = found.set.parts["train"][0]
    label = found.set.label(key)
    assert label[0, 0] == IGNORED
    assert (label[1:, :16] == 0).all()
    assert (label[:, 16:] == 1).all()


def test_every_placed_image_is_of_one_part_and_its_labels_are_hidden_elsewhere(tmp_path, pool):
    found = opened(placed(tmp_path), pool)
    parts = found.set.parts
    assert {len(keys) > 0 for keys in parts.values()} == {True}
    name = parts["val"][0].partition("/")[2]
    assert (found.set.label(f"val/{name}") != IGNORED).any()
    assert (found.set.label(f"train/{name}") == IGNORED).all()


def test_polygons_of_a_split_file_cut_an_image_in_two(tmp_path, pool):
    placed(tmp_path, count=1)
    left = shapely.box(500_000, 5_399_968, 500_016, 5_400_000)
    right = shapely.box(500_016, 5_399_968, 500_032, 5_400_000)
    frame = geopandas.GeoDataFrame(
        {"split": ["train", "val"]}, geometry=[left, right], crs="EPSG:32632"
    )
    frame.to_file(tmp_path / "split.gpkg")
    found = opened(tmp_path, pool, split=str(tmp_path / "split.gpkg")).set
    assert found.parts["train"] == ("train/i0.tif",)
    train, val = (found.label(f"{part}/i0.tif") for part in ("train", "val"))
    assert (train[:, 16:] == IGNORED).all()
    assert (train[1:, :16] == 0).all()
    assert (val[:, :16] == IGNORED).all()
    assert (val[:, 16:] == 1).all()


def test_a_mask_of_another_size_is_refused_in_a_sentence(tmp_path, pool):
    placed(tmp_path)
    tif(tmp_path / "masks" / "i3.tif", halves()[:20], crs=None)
    with pytest.raises(SourceError, match=r"i3\.tif has 20 x 32 px, its image .* 32 x 32"):
        opened(tmp_path, pool)


def test_masks_with_a_local_crs_lie_on_their_images_pixels(tmp_path, pool):
    placed(tmp_path, crs='LOCAL_CS["somewhere",UNIT["metre",1]]')
    assert opened(tmp_path, pool).layout == "masks"


def test_class_rasters_on_another_grid_come_by_place_and_majority(tmp_path, pool):
    # Label pixels of half a metre: in each image pixel three of 1 and one of 3.
    fine = np.ones((2 * SIDE, 2 * SIDE), np.uint8)
    fine[::2, ::2] = 3
    fine[:, :2] = 2
    for number in range(6):
        east = 500_000.0 + 1_000 * number
        tif(tmp_path / "images" / f"i{number}.tif", rgb(), east=east)
        tif(tmp_path / "labels" / f"i{number}.tif", fine, east=east, gsd=0.5)
    found = opened(tmp_path, pool, labels="labels")
    assert found.layout == "rasters"
    label = found.set.label(found.set.parts["train"][0])
    assert (label[:, 0] == 1).all()
    assert (label[:, 1:] == 0).all()
    nearest = opened(tmp_path, pool, labels="labels", statistic="nearest").set
    assert nearest.label(nearest.parts["train"][0]).shape == (SIDE, SIDE)


def test_polygons_are_drawn_by_the_centres_of_pixels_in_any_crs(tmp_path, pool):
    placed(tmp_path, count=6)
    rows = []
    for number in range(6):
        east = 500_000.0 + 1_000 * number
        rows.append(("pond", shapely.box(east + 3.4, 5_399_990, east + 9.6, 5_400_000)))
    frame = geopandas.GeoDataFrame(
        {"kind": [r[0] for r in rows]}, geometry=[r[1] for r in rows], crs="EPSG:32632"
    ).to_crs("EPSG:4326")
    frame.to_file(tmp_path / "ponds.gpkg")
    found = opened(
        tmp_path, pool, labels="ponds.gpkg", classes=None, ignored=(), column="kind",
        elsewhere="land",
    ).set  # fmt: skip
    assert found.facts.classes == ("land", "pond")
    key = found.parts["train"][0]
    label = found.label(key)
    expected = np.zeros((SIDE, SIDE), np.uint8)
    expected[:10, 3:10] = 1  # centres 3.5 to 9.5
    np.testing.assert_array_equal(label, expected)
    part = found.label(key, Window(8, 2, 5, 5))
    np.testing.assert_array_equal(part, expected[8:13, 2:7])


def test_pixels_in_no_polygon_are_ignored_unless_told_otherwise(tmp_path, pool):
    placed(tmp_path, count=6)
    shapes = [
        shapely.box(500_000 + 1_000 * i, 5_399_990, 500_008 + 1_000 * i, 5_400_000)
        for i in range(6)
    ]
    frame = geopandas.GeoDataFrame({"class": [1, 2, 1, 2, 1, 2]}, geometry=shapes, crs="EPSG:32632")
    frame.to_parquet(tmp_path / "p.parquet")
    found = opened(tmp_path, pool, labels="p.parquet", classes={"a": 1, "b": 2}, ignored=()).set
    label = found.label(found.parts["train"][0])
    assert (label != IGNORED).sum() == 80


def test_palette_masks_are_read_by_number_or_by_colour(tmp_path, pool):
    for number in range(4):
        path = tmp_path / "images" / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(rgb().transpose(1, 2, 0)).save(path)
        mask = Image.fromarray(halves() - (halves() == 3)).convert("P")
        mask.putpalette([0, 0, 0, 0, 0, 255, 0, 255, 0])
        (tmp_path / "masks").mkdir(exist_ok=True)
        mask.save(tmp_path / "masks" / f"{number}.png")
    by_number = opened(tmp_path, pool, classes={"water": 1, "land": 2}).set
    colours = {"water": "#0000ff", "land": "#00ff00"}
    by_colour = opened(tmp_path, pool, classes=colours, ignored=("#000000",)).set
    key = by_number.parts["train"][0]
    np.testing.assert_array_equal(by_number.label(key), by_colour.label(key))
    assert len(by_number.parts["val"]) == len(by_number.parts["test"]) == 1


def test_folders_called_train_and_val_are_the_parts(tmp_path, pool):
    for part in ("train", "val"):
        tif(tmp_path / "images" / part / "a.tif", rgb())
        tif(tmp_path / "masks" / part / "a.tif", halves())
    found = opened(tmp_path, pool)
    assert found.set.parts == {
        "train": ("train/train/a.tif",),
        "val": ("val/val/a.tif",),
        "test": (),
    }


def test_a_list_says_which_image_is_for_what(tmp_path, pool):
    placed(tmp_path, count=3)
    table = tmp_path / "parts.csv"
    table.write_text("image,split\ni0.tif,val\ni1.tif,train\n")
    found = opened(tmp_path, pool, split=str(table)).set
    assert found.parts == {"train": ("train/i1.tif",), "val": ("val/i0.tif",), "test": ()}
    table.write_text("image,split\ni9.tif,val\n")
    with pytest.raises(SourceError, match="no image of the source"):
        opened(tmp_path, pool, split=str(table))


def test_a_suffix_in_the_names_of_masks_is_declared(tmp_path, pool):
    placed(tmp_path)
    for path in (tmp_path / "masks").glob("*.tif"):
        path.rename(path.with_name(f"{path.stem}_mask.tif"))
    assert opened(tmp_path, pool, suffix="_mask", layout="masks").layout == "masks"
    with pytest.raises(RecipeError, match=r"labels\.suffix"):
        opened(tmp_path, pool, layout="masks")


def test_values_that_are_no_class_are_named_or_ignored_as_declared(tmp_path, pool):
    placed(tmp_path)
    strict = opened(tmp_path, pool, ignored=()).set
    with pytest.raises(SourceError, match=r"holds 0, which labels\.classes does not name"):
        strict.label(strict.parts["train"][0])
    lenient = opened(tmp_path, pool, ignored=(), other="ignore").set
    assert lenient.label(lenient.parts["train"][0])[0, 0] == IGNORED


def test_a_nodata_tag_is_ignored_but_a_declared_class_stands_above_it(tmp_path, pool):
    placed(tmp_path, nodata=0)
    plain = opened(tmp_path, pool, ignored=()).set
    assert plain.label(plain.parts["train"][0])[0, 0] == IGNORED
    declared = opened(tmp_path, pool, ignored=(), classes={"none": 0, **TWO}).set
    assert declared.label(declared.parts["train"][0])[0, 0] == 0


def test_classes_must_be_declared_once_each(tmp_path, pool):
    placed(tmp_path)
    held = (
        r"labels\.classes is missing.*6 of the 6 hold the values 0, 1, 3\..*--set .labels\.classes="
    )
    with pytest.raises(RecipeError, match=held):
        opened(tmp_path, pool, classes=None)
    with pytest.raises(RecipeError, match="means both"):
        opened(tmp_path, pool, classes={"a": 1, "b": (1, 3)})
    with pytest.raises(RecipeError, match="none of the classes"):
        opened(tmp_path, pool, background="sky")


def test_a_map_that_names_its_classes_needs_no_declaration(tmp_path, pool):
    placed(tmp_path)
    for path in (tmp_path / "masks").glob("*.tif"):
        with rasterio.open(path, "r+") as file:
            file.update_tags(GEODINO_CLASSES='["none", "water", "", "land"]')
    found = opened(tmp_path, pool, classes=None, ignored=()).set
    assert found.facts.classes == ("none", "water", "land")
    assert found.label(found.parts["train"][0])[0, 31] == 2


def test_as_many_colours_as_wanted_all_different():
    assert len(set(default_colours(60))) == 60


def test_numbers_of_values_as_a_dictionary_says():
    table = ClassTable(
        names=("a", "b"), values=((5, -1), (70_000,)), colours=((0, 0, 0), (1, 1, 1))
    )
    values = np.array([5, 70_000, -1, 255], dtype=np.int64)
    np.testing.assert_array_equal(table.numbers(values, source="x"), [0, 1, 0, IGNORED])
