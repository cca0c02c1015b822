import datetime
import struct

import numpy as np
import pytest
from labelled_support import geotiff, hdf5, make_tortilla, tortilla

from geodino.data.labelled.sets import LabelledSet
from geodino.data.labelled.tortilla import find_tortillas, open_tortilla
from geodino.data.labelled.tortilla_file import read_rows
from geodino.data.labelled.tortilla_table import V2
from geodino.errors import SourceError
from geodino.geo.windows import Window

RAMP = np.arange(64, dtype="uint16").reshape(1, 8, 8)
SUMMER = datetime.datetime(2020, 7, 1, tzinfo=datetime.UTC).timestamp()


def tif(pixels, **kwargs):
    return ("GTiff", geotiff(np.ascontiguousarray(pixels), **kwargs), {})


def sample(number, split, rows, **columns):
    return f"sample_{number}", split, columns, [(name, *rest) for name, rest in rows.items()]


def segmentation(path, *, mask=None, count=3):
    mask = (RAMP // 32).astype("uint8") if mask is None else mask
    return make_tortilla(
        path,
        [
            sample(i, split, {"image": tif(np.concatenate([RAMP + i] * 3)), "mask": tif(mask)})
            for i, split in zip(range(count), ("train", "validation", "test"), strict=False)
        ],
    )


def test_a_map_of_classes_lies_beside_its_image(tmp_path):
    made = open_tortilla(segmentation(tmp_path / "burn_scars.tortilla"))
    assert isinstance(made, LabelledSet)
    assert made.parts == {"train": ("sample_0",), "val": ("sample_1",), "test": ("sample_2",)}
    pixels, valid = made.image("sample_2")
    np.testing.assert_array_equal(pixels[1], RAMP[0] + 2)
    assert valid.all()
    assert (made.facts.kind, made.facts.metric, made.facts.dtype) == (
        "segmentation",
        "miou",
        "uint16",
    )
    window = Window(3, 2, 4, 5)
    np.testing.assert_array_equal(made.image("sample_0", window)[0][0], RAMP[0, 3:7, 2:7])
    np.testing.assert_array_equal(made.label("sample_0", window), RAMP[0, 3:7, 2:7] // 32)
    assert made.size("sample_0") == (8, 8)
    assert any("no published file was compared" in note for note in made.facts.notes)


def test_a_pixel_outside_the_classes_is_refused_and_255_is_ignored(tmp_path):
    mask = np.full((1, 8, 8), 255, "uint8")
    made = open_tortilla(segmentation(tmp_path / "burn_scars.tortilla", mask=mask))
    assert (made.label("sample_0") == 255).all()
    mask[0, 0, 0] = 2
    made = open_tortilla(segmentation(tmp_path / "burn_scars.tortilla", mask=mask))
    with pytest.raises(SourceError, match="holds the label 2, but the classes are numbered 0 to 1"):
        made.label("sample_0")
    three = open_tortilla(tmp_path / "burn_scars.tortilla", classes=["a", "b", "c"])
    assert three.label("sample_0")[0, 0] == 2


def test_numbers_and_names_of_classes_come_from_the_table(tmp_path):
    rows = {"s1": tif(np.zeros((2, 4, 4), "float32")), "s2": tif(np.ones((12, 4, 4), "uint16"))}
    cls = make_tortilla(
        tmp_path / "so2sat.tortilla",
        [sample(i, split, rows, label=3 * i) for i, split in enumerate(("train", "val", "test"))],
    )
    made = open_tortilla(cls)
    assert [made.label(f"sample_{i}") for i in range(3)] == [0, 3, 6]
    labels = [["Marine waters"], ["Pastures", "Transitional woodland, shrub"], []]
    multi = make_tortilla(
        tmp_path / "benv2.tortilla",
        [
            sample(
                i, split, rows, labels=labels[i], country="Serbia", **{"stac:time_start": SUMMER}
            )
            for i, split in enumerate(("train", "val", "test"))
        ],
    )
    made = open_tortilla(multi)
    assert [made.facts.classes[i] for i in np.flatnonzero(made.label("sample_1"))] == labels[1][:2]
    assert not made.label("sample_2").any()
    assert made.facts.bands[3].common_name == "red"
    assert made.traits("sample_0") == {
        "sensor": "s2", "region": "Serbia", "date": "2020-07-01", "season": "summer",
    }  # fmt: skip
    radar = open_tortilla(multi, modality="s1")
    assert [band.common_name for band in radar.facts.bands] == ["vh", "vv"]
    with pytest.raises(SourceError, match=r"has no images 's3' in its samples\. They have: s1, s2"):
        open_tortilla(multi, modality="s3")


def test_labels_outside_the_classes_are_refused(tmp_path):
    rows = {"s2": tif(RAMP)}
    path = make_tortilla(
        tmp_path / "so2sat.tortilla",
        [sample(0, "train", rows, label=17), sample(1, "test", rows, label=16)],
    )
    made = open_tortilla(path)
    with pytest.raises(SourceError, match="has the label 17, which is none of the 17 classes"):
        made.label("sample_0")
    assert made.label("sample_1") == 16


def test_the_first_or_the_named_date_of_a_series_is_read(tmp_path):
    rows = {f"s2_2020060{i}": tif(RAMP + i) for i in (1, 2, 3)} | {
        "mask": tif(RAMP.astype("uint8") // 32)
    }
    path = make_tortilla(
        tmp_path / "pastis.tortilla", [sample(0, "train", rows), sample(1, "test", rows)]
    )
    made = open_tortilla(path)
    assert made.image("sample_0")[0][0, 0, 0] == 1
    assert "Of 3 dates of a sample the first is read." in made.facts.notes
    assert open_tortilla(path, date="20200603").image("sample_0")[0][0, 0, 0] == 3
    with pytest.raises(SourceError, match="has no image 's2' of 2021"):
        open_tortilla(path, date="2021").image("sample_0")


def test_hdf5_within_holds_images_and_map_by_name(tmp_path):
    content = hdf5({"image": np.stack([RAMP[0]] * 2), "mask": RAMP[0] // 32, "number": np.int64(3)})
    path = make_tortilla(
        tmp_path / "cloudsen12.tortilla",
        [
            sample(i, split, {"all": ("HDF5", content, {})})
            for i, split in enumerate(("train", "test"))
        ],
    )
    made = open_tortilla(path)
    np.testing.assert_array_equal(
        made.image("sample_0", Window(1, 1, 2, 2))[0][1], RAMP[0, 1:3, 1:3]
    )
    np.testing.assert_array_equal(made.label("sample_1"), RAMP[0] // 32)
    assert [band.name for band in made.facts.bands] == ["band_1", "band_2"]


def test_a_damaged_byte_of_hdf5_within_is_one_sentence_or_nothing(tmp_path):
    whole = hdf5({"image": np.stack([RAMP[0]] * 2), "mask": RAMP[0] // 32})
    said = 0
    for place in range(0, min(len(whole), 3000), 31):
        content = whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :]
        path = make_tortilla(
            tmp_path / "cloudsen12.tortilla",
            [
                sample(i, split, {"all": ("HDF5", content, {})})
                for i, split in enumerate(("train", "test"))
            ],
        )
        try:
            made = open_tortilla(path)
            made.image("sample_0")
            made.label("sample_0")
        except SourceError as error:
            assert str(path) in str(error)  # noqa: PT017
            said += 1
    assert said > 5


def test_a_map_of_numbers_has_nan_where_a_tag_says_unknown(tmp_path):
    heights = np.full((1, 8, 8), 5.0, "float32")
    heights[0, 0, 0] = -1
    rows = {"S2_July": tif(np.ones((11, 8, 8), "uint16")), "x_AGBM": tif(heights, nodata=-1.0)}
    rows = {name: (*rest[:2], {"modality": name.split("_")[0]}) for name, rest in rows.items()}
    made = open_tortilla(
        make_tortilla(
            tmp_path / "biomassters.tortilla", [sample(0, "train", rows), sample(1, "test", rows)]
        )
    )
    label = made.label("sample_0")
    assert np.isnan(label[0, 0])
    assert label[0, 1] == 5
    assert made.facts.unit == "t/ha"


def test_a_fourth_band_tagged_alpha_is_a_band(tmp_path):
    rows = {
        "aerial": tif(np.stack([RAMP[0].astype("uint8")] * 4)),
        "mask": tif(RAMP.astype("uint8") // 32),
    }
    made = open_tortilla(
        make_tortilla(
            tmp_path / "flair2.tortilla", [sample(0, "train", rows), sample(1, "test", rows)]
        )
    )
    pixels, valid = made.image("sample_0")
    assert len(pixels) == len(made.facts.bands) == 4
    assert valid.all()


def test_rows_for_a_further_test_belong_to_no_part(tmp_path):
    rows = {"s2": tif(RAMP)}
    path = make_tortilla(
        tmp_path / "so2sat.tortilla",
        [
            sample(0, "train", rows, label=0, add_test_split=False),
            sample(1, "test", rows, label=0, add_test_split=False),
            sample(2, "train", rows, label=0, add_test_split=True),
        ],
    )
    made = open_tortilla(path)
    assert made.parts == {"train": ("sample_0",), "test": ("sample_1",)}
    assert "1 samples marked add_test_split belong to no part." in made.facts.notes


def test_files_are_found_by_name_and_parts_of_one_set_go_together(tmp_path):
    segmentation(tmp_path / "burn_scars.tortilla")
    (tmp_path / "caffe").mkdir()
    make_tortilla(
        tmp_path / "caffe" / "caffe.0000.part.tortilla", [sample(0, "train", {"image": tif(RAMP)})]
    )
    make_tortilla(
        tmp_path / "caffe" / "caffe.0001.part.tortilla", [sample(1, "test", {"image": tif(RAMP)})]
    )
    found = find_tortillas(tmp_path)
    assert list(found) == ["burn_scars", "caffe"]
    made = open_tortilla(found["caffe"])
    assert made.parts == {"train": ("sample_0",), "test": ("sample_1",)}
    with pytest.raises(SourceError, match="has no map of labels; it has image"):
        made.label("sample_0")


def test_boxes_and_unknown_names_are_refused(tmp_path):
    path = segmentation(tmp_path / "burnscars.tortilla")
    with pytest.raises(SourceError, match="Did you mean 'burn_scars'"):
        open_tortilla(path)
    assert open_tortilla(path, name="burn_scars").facts.name == "burn_scars"
    with pytest.raises(SourceError, match="holds boxes"):
        open_tortilla(path, name="everwatch")


def test_the_table_has_nineteen_sets():
    assert len(V2) == 19
    assert all(about.classes or about.kind in ("regression", "detection") for about in V2.values())


def test_damage_is_named_in_one_sentence(tmp_path):
    path = segmentation(tmp_path / "burn_scars.tortilla")
    whole = path.read_bytes()
    offset, length = struct.unpack("<QQ", whole[2:18])
    cases = {
        "is cut off: its table should end": whole[:-10],
        "is no tortilla": b"PK" + whole[2:],
        "is cut off": whole[:2] + struct.pack("<QQ", 2**60, 10) + whole[18:],
        "The table at the end of .* cannot be read": whole[:offset] + b"\0" * length,
        "begins with b''": b"",
    }
    for sentence, content in cases.items():
        path.write_bytes(content)
        with pytest.raises(SourceError, match=sentence):
            open_tortilla(path)
    with pytest.raises(SourceError, match="No such file"):
        open_tortilla(tmp_path / "caffe.tortilla")


def test_a_row_outside_of_its_file_is_refused(tmp_path):
    path = tmp_path / "caffe.tortilla"
    for column, value in (("tortilla:length", 10_000), ("tortilla:offset", -1)):
        path.write_bytes(tortilla([("sample_0", "GTiff", b"x" * 10, {column: value})]))
        with pytest.raises(
            SourceError, match=r"'sample_0' should lie in bytes .* outside of the file"
        ):
            read_rows(path)
    path.write_bytes(tortilla([("sample_0", "GTiff", b"x" * 10, {"tortilla:file_format": None})]))
    with pytest.raises(SourceError, match="lacks 'tortilla:file_format'"):
        read_rows(path)


def test_the_publishers_multilabel_file_is_read(shared_data):
    made = open_tortilla(shared_data / "geobench" / "v2_tortilla" / "benv2.tortilla")
    assert {part: len(keys) for part, keys in made.parts.items()} == {
        "train": 4,
        "val": 2,
        "test": 2,
    }
    key = "sample_24555"
    assert [made.facts.classes[i] for i in np.flatnonzero(made.label(key))] == [
        "Land principally occupied by agriculture, with significant areas of natural vegetation",
        "Coniferous forest", "Mixed forest", "Transitional woodland, shrub",
    ]  # fmt: skip
    pixels, _ = made.image(key)
    assert (pixels.shape, str(pixels.dtype)) == ((12, 120, 120), "uint16")
    west, south, east, north = made.outline(key)
    assert west < 30.54 < east + 0.02
    assert south < 62.50 < north + 0.02
    assert made.traits(key)["season"] == "autumn"
    # A forest: near infrared (nir, nir08) well above red.
    names = [band.common_name for band in made.facts.bands]
    red, nir = (pixels[names.index(name)].mean() for name in ("red", "nir"))
    assert nir > 3 * red
    radar, _ = open_tortilla(made.files[0], modality="s1").image(key)
    assert radar[0].mean() < radar[1].mean()  # VH is weaker than VV


def test_the_publishers_biomass_file_is_read(shared_data):
    path = shared_data / "geobench" / "v2_tortilla" / "biomassters.tortilla"
    made = open_tortilla(path)
    label = made.label("sample_0")
    assert (label.shape, str(label.dtype)) == ((32, 32), "float32")
    assert float(label.max()) == pytest.approx(291.485, abs=1e-3)
    assert made.image("sample_0")[0].shape == (11, 32, 32)
    radar = open_tortilla(path, modality="s1", date="July")
    _, valid = radar.image("sample_0")
    assert 0 < valid.mean() < 1  # -9999 marks the pass that was not flown
