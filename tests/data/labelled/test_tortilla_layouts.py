"""GEO-Bench-2 as its publishers write it: names of rows, columns and values set by set.

Layouts are those of the benchmark's generator and reader (Apache-2.0).
"""

import numpy as np
import pytest
from labelled_support import geotiff, hdf5, make_tortilla

from geodino.data.labelled.tortilla import open_tortilla
from geodino.errors import SourceError

SIDE = 8
RAMP = np.arange(SIDE * SIDE).reshape(SIDE, SIDE)


def tif(count, dtype="uint8", value=0, **kwargs):
    pixels = np.stack([RAMP + 100 * band + value for band in range(count)]).astype(dtype)
    return "GTiff", geotiff(pixels, **kwargs), {}


def of_map(values, dtype="uint8", **kwargs):
    return "GTiff", geotiff(np.asarray(values, dtype)[None], **kwargs), {}


def h5(values):
    return "HDF5", hdf5({"data": values}), {}


def published(tmp_path, name, rows, **columns):
    """A set of three samples of the same rows."""
    samples = [
        (f"sample_{i}", split, {"add_test_split": False, **columns}, _rows(rows))
        for i, split in enumerate(("train", "validation", "test"))
    ]
    return make_tortilla(tmp_path / f"geobench_{name}.tortilla", samples)


def _rows(rows):
    return [(name, *rest) for name, rest in rows.items()]


def names_of(made):
    return [band.common_name or band.name for band in made.facts.bands]


def test_flair_masks_count_from_one_and_all_above_thirteen_is_other(tmp_path):
    mask = np.full((SIDE, SIDE), 1)
    mask[0] = (1, 2, 12, 13, 14, 18, 19, 255)
    path = published(tmp_path, "flair2", {"aerial": tif(5), "mask": of_map(mask)}, domain="D013")
    made = open_tortilla(path)
    assert made.label("sample_0")[0].tolist() == [0, 1, 11, 12, 12, 12, 12, 255]
    assert names_of(made) == ["red", "green", "blue", "nir", "elevation"]
    assert made.traits("sample_0")["region"] == "D013"
    zero = published(tmp_path, "flair2", {"aerial": tif(5), "mask": of_map(mask * 0)})
    with pytest.raises(SourceError, match="holds the label -1"):
        open_tortilla(zero).label("sample_0")


@pytest.mark.parametrize(
    ("name", "label", "number"),
    [("forestnet", "Logging road", 9), ("so2sat", "Water", 16), ("so2sat", 3, 3), ("so2sat", 3.0, 3)],
)  # fmt: skip
def test_classes_of_whole_images_are_named_or_numbered(tmp_path, name, label, number):
    rows = {"image": tif(6)} if name == "forestnet" else {"s1": tif(2), "s2": tif(10, "float32")}
    made = open_tortilla(published(tmp_path, name, rows, labels=label, patch_id="x"))
    assert made.label("sample_2") == number
    assert [names_of(made)[i] for i in (2, 1, 0)] == ["red", "green", "blue"]


def test_trees_are_named_in_a_column_of_their_own(tmp_path):
    rows = {"aerial": tif(4), "s1": tif(3, "float32"), "s2": tif(12, "uint16")}
    columns = {"species_labels": ["Quercus", "Abies"], "dist_labels": [0.7, 0.3]}
    made = open_tortilla(published(tmp_path, "treesatai", rows, **columns))
    found = np.flatnonzero(made.label("sample_0"))
    assert [made.facts.classes[i] for i in found] == ["Abies", "Quercus"]
    assert names_of(made) == ["nir", "green", "blue", "red"]
    bare = published(tmp_path, "treesatai", rows)
    with pytest.raises(
        SourceError, match="has no column 'species_labels', which holds its classes"
    ):
        open_tortilla(bare).label("sample_0")


def test_of_two_maps_the_one_of_classes_is_read(tmp_path):
    one, two = of_map(np.ones((SIDE, SIDE))), of_map(np.full((SIDE, SIDE), 2))
    fields = {
        "win_a": tif(4, "uint16"),
        "win_b": tif(4, "uint16"),
        "instance_mask": one,
        "semantic_3class_mask": two,
    }
    made = open_tortilla(published(tmp_path, "fotw", fields, country="austria"))
    assert (made.label("sample_0") == 2).all()
    assert names_of(made) == ["red", "green", "blue", "nir"]
    assert made.facts.bands[0].unit == "reflectance"
    buildings = {
        "ps-ms": tif(8, "uint16"),
        "pan": tif(1, "uint16"),
        "semantic_mask": one,
        "instance_mask": two,
    }
    made = open_tortilla(published(tmp_path, "spacenet2", buildings, city="Paris"))
    assert (made.label("sample_0") == 1).all()
    assert made.traits("sample_0")["region"] == "Paris"
    assert [names_of(made)[i] for i in (4, 2, 1)] == ["red", "green", "blue"]
    flood = {name: tif(2, "float32") for name in ("pre_event_1", "pre_event_2", "post_event")}
    flood |= {"dem": tif(1, "float32"), "mask": two, "invalid_data": one}
    made = open_tortilla(published(tmp_path, "kuro_siwo", flood))
    assert (made.label("sample_0") == 2).all()
    assert made.facts.classes[2] == "flood"
    assert names_of(made) == ["vv", "vh"]
    assert any("'post_event' are read" in note for note in made.facts.notes)


def test_a_series_in_hdf5_is_read_at_its_last_date_beside_the_map_of_classes(tmp_path):
    dates = np.stack([np.stack([RAMP + 1000 * t + band for band in range(10)]) for t in range(3)])
    semantic = np.stack([RAMP % 20, RAMP * 0 + 7, RAMP * 0 + 9])
    rows = {
        "s2": h5(dates.astype("int16")),
        "s1a": h5(np.zeros((2, 3, SIDE, SIDE), "float16")),
        "s1d": h5(np.zeros((2, 3, SIDE, SIDE), "float16")),
        "semantic": h5(semantic.astype("uint8")),
        "instance": h5(RAMP.astype("int32")),
    }
    made = open_tortilla(published(tmp_path, "pastis", rows, tile="t30uxv"))
    pixels, valid = made.image("sample_1")
    np.testing.assert_array_equal(pixels[3], RAMP + 2003)
    assert valid.all()
    assert made.size("sample_1") == (SIDE, SIDE)
    np.testing.assert_array_equal(made.label("sample_1"), RAMP % 20)
    assert names_of(made)[:3] == ["blue", "green", "red"]
    assert len(made.facts.bands) == 10
    assert "Of the dates of a sample (3 in sample_0) the last is read." in made.facts.notes
    assert any("also have s1a, s1d" in note for note in made.facts.notes)


def test_no_data_of_burn_scars_is_ignored_and_a_crs_that_is_none_is_no_place(tmp_path):
    mask = np.ones((SIDE, SIDE), "int16")
    mask[0, 0] = -1
    rows = {"image": tif(6, "float32"), "label": of_map(mask, "int16")}
    place = {
        "stac:crs": "EPSG:None",
        "stac:geotransform": [0.0, 30.0, 0.0, 0.0, 0.0, -30.0],
        "stac:raster_shape": [SIDE, SIDE],
        "stac:time_start": 1451606400,
    }
    made = open_tortilla(published(tmp_path, "burn_scars", rows, **place))
    assert made.label("sample_0")[0, :2].tolist() == [255, 1]
    assert names_of(made)[:3] == ["blue", "green", "red"]
    assert made.outline("sample_0") is None
    assert made.traits("sample_0")["date"] == "2016-01-01"


def test_bands_beyond_the_known_ones_are_numbered(tmp_path):
    rows = {"s2l2a": tif(14, "uint16"), "target": of_map(RAMP % 4)}
    made = open_tortilla(published(tmp_path, "cloudsen12", rows))
    assert names_of(made)[3] == "red"
    assert names_of(made)[-2:] == ["band_13", "band_14"]


def test_a_sample_in_two_files_is_refused(tmp_path):
    path = published(tmp_path, "caffe", {"image": tif(1), "mask": of_map(RAMP % 4)})
    with pytest.raises(SourceError, match="both hold the sample 'sample_0'"):
        open_tortilla([path, path], name="caffe")
