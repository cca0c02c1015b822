import datetime
import json
import pickle

import h5py
import numpy as np
import pytest
from labelled_support import S2, geobench_classes, geobench_sample, make_geobench

from geodino.data.labelled.geobench import find_geobench, open_geobench
from geodino.data.labelled.geobench_table import V1, split_date, v1_band
from geodino.data.labelled.sets import LabelledSet
from geodino.errors import BandError, SourceError
from geodino.geo.windows import Window


def first(made):
    return made.parts["train"][0]


def test_a_classification_set_gives_images_labels_and_facts(tmp_path):
    made = open_geobench(make_geobench(tmp_path))
    assert isinstance(made, LabelledSet)
    assert {part: len(keys) for part, keys in made.parts.items()} == {
        "train": 6,
        "val": 3,
        "test": 3,
    }
    facts = made.facts
    assert (facts.name, facts.kind, facts.metric) == ("m-eurosat", "classification", "accuracy")
    assert facts.classes == ("kind 0", "kind 1", "kind 2")
    assert [band.common_name for band in facts.bands] == ["blue", "green", "red"]
    assert facts.bands[2].wavelength_nm == 665
    assert facts.bands[2].scale == 1e-4
    assert facts.statistics.high == (1000.0, 1001.0, 1002.0)
    assert (facts.gsd_m, facts.dtype) == (10.0, "uint16")
    for number, key in enumerate(made.parts["train"]):
        assert made.label(key) == number % 3
        pixels, valid = made.image(key)
        assert pixels.shape == (3, 8, 8)
        assert valid.all()
        np.testing.assert_array_equal(pixels[:, 0, 0], 100 * (number % 3) + np.arange(3))
    assert made.size(first(made)) == (8, 8)


def test_windows_are_cut_from_image_and_map(tmp_path):
    made = open_geobench(make_geobench(tmp_path, "m-chesapeake", kind="segmentation", classes=7,
                                       bands=("Red", "Green", "Blue", "NIR"), dtype="uint8"))  # fmt: skip
    key = made.parts["train"][1]
    whole, window = made.label(key), Window(2, 3, 4, 5)
    np.testing.assert_array_equal(made.label(key, window), whole[2:6, 3:8])
    np.testing.assert_array_equal(made.image(key, window)[0], made.image(key)[0][:, 2:6, 3:8])
    assert whole.dtype == np.uint8
    # Upper left 0, upper right 1, lower half the number of the image.
    assert [whole[0, 0], whole[0, 7], whole[7, 0]] == [0, 1, 1]
    assert [band.common_name for band in made.facts.bands] == ["red", "green", "blue", "nir"]
    with pytest.raises(ValueError, match="reaches out"):
        made.image(key, Window(6, 0, 4, 4))


@pytest.mark.parametrize("field", ["class_names", "_class_names", "class_name"])
def test_names_of_classes_are_found_in_whichever_field_the_publisher_keeps_them(tmp_path, field):
    folder = make_geobench(tmp_path)
    names = ["Forest", "River", "Sea"]
    with geobench_classes("TaskSpecifications", "Classification") as made:
        label, task = made["Classification"](), made["TaskSpecifications"]()
        label.__dict__.update({"n_classes": 3, field: names})
        task.__dict__.update(label_type=label)
        (folder / "task_specs.pkl").write_bytes(pickle.dumps(task))
    assert open_geobench(folder).facts.classes == tuple(names)


def test_the_infrared_of_chesapeake_is_a_band(tmp_path):
    bands = ("Red", "Green", "Blue", "NearInfrared")
    made = open_geobench(
        make_geobench(tmp_path, "m-chesapeake", kind="segmentation", classes=7, bands=bands)
    )
    assert [band.common_name for band in made.facts.bands] == ["red", "green", "blue", "nir"]


def test_a_multilabel_set_gives_one_truth_value_a_class(tmp_path):
    made = open_geobench(make_geobench(tmp_path, "m-bigearthnet", kind="multilabel", classes=43))
    assert made.facts.metric == "micro_f1"
    assert len(made.facts.classes) == 43
    label = made.label(made.parts["train"][5])
    assert label.dtype == bool
    assert list(np.flatnonzero(label)) == [0, 2]  # 5 = 2**0 + 2**2


def test_cashew_leaves_class_0_out_of_its_mean_and_crops_their_clouds(tmp_path):
    cashew = open_geobench(
        make_geobench(tmp_path, "m-cashew-plant", kind="segmentation", classes=7)
    )
    assert (cashew.facts.background, len(cashew.facts.classes)) == (0, 7)
    bands = (*S2[1:4], "Cloud Probability")
    crops = open_geobench(
        make_geobench(tmp_path, "m-SA-crop-type", kind="segmentation", classes=10, bands=bands)
    )
    assert crops.facts.background is None
    assert [band.name for band in crops.facts.bands] == list(S2[1:4])
    assert (
        "'Cloud Probability' is not read as a band of the image (it is all zero)."
        in crops.facts.notes
    )


def test_every_set_of_the_table_opens_under_its_name_and_all_are_found(tmp_path):
    for name, about in V1.items():
        bands = S2[1:4] if about.sensor == "sentinel-2" else ("Red", "Green", "Blue")
        make_geobench(tmp_path, name, kind=about.kind, classes=about.classes, bands=bands,
                      counts=(1, 1, 1))  # fmt: skip
    found = find_geobench(tmp_path)
    assert list(found) == list(V1)
    assert find_geobench(found["m-eurosat"]) == {"m-eurosat": found["m-eurosat"]}
    assert list(find_geobench(tmp_path / "segmentation_v1.0")) == [
        n for n, a in V1.items() if a.kind == "segmentation"
    ]
    for name, folder in found.items():
        made = open_geobench(folder)
        assert len(made.facts.classes) == V1[name].classes
        made.label(first(made))


def test_the_partition_is_chosen_and_a_missing_one_is_named(tmp_path):
    folder = make_geobench(tmp_path)
    few = open_geobench(folder, partition="0.01x_train")
    assert len(few.parts["train"]) == 2
    assert any("not the default one" in note for note in few.facts.notes)
    assert few.fingerprint != open_geobench(folder).fingerprint
    with pytest.raises(SourceError, match=r"no partition '0.1x_train'.*0.01x_train, default"):
        open_geobench(folder, partition="0.1x_train")
    note = "6/3/3 images for training, validation and testing; 2000/1000/1000 are published"
    assert any(note in text for text in open_geobench(folder).facts.notes)


def test_the_fingerprint_follows_content(tmp_path):
    one = open_geobench(make_geobench(tmp_path / "a")).fingerprint
    assert one == open_geobench(make_geobench(tmp_path / "b")).fingerprint
    assert one != open_geobench(make_geobench(tmp_path / "c", spread=3.0)).fingerprint


def test_dates_choose_the_first_and_become_traits(tmp_path):
    folder = make_geobench(tmp_path, date=datetime.date(2019, 7, 1))
    made = open_geobench(folder)
    key = first(made)
    assert made.traits(key) == {"date": "2019-07-01", "season": "summer"}
    with h5py.File(folder / f"{key}.hdf5", "a") as file:
        for name in S2[1:4]:
            file.create_dataset(f"{name}_2019-01-01", data=np.full((8, 8), 7, dtype="uint16"))
    again = open_geobench(folder)
    assert (again.image(key)[0] == 7).all()
    assert "Of the 2 dates of a sample the first is read." in again.facts.notes


def test_a_sample_knows_its_place(tmp_path):
    made = open_geobench(make_geobench(tmp_path))
    west, south, east, north = made.outline(first(made))
    # 600 km east in zone 32: 1.36 degrees east of 9; 80 m are 0.0011 degrees of longitude here.
    assert west == pytest.approx(10.36, abs=0.02)
    assert north == pytest.approx(48.74, abs=0.02)
    assert east - west == pytest.approx(0.00109, rel=0.03)
    assert north - south == pytest.approx(0.00072, rel=0.03)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_any_protocol_of_pickles_is_read(tmp_path, protocol):
    made = open_geobench(make_geobench(tmp_path, protocol=protocol))
    assert [made.label(key) for key in made.parts["test"]] == [0, 1, 2]


def test_bands_are_chosen_by_either_name_and_unknown_ones_are_refused(tmp_path):
    folder = make_geobench(tmp_path)
    made = open_geobench(folder, bands=["red", "02 - Blue"])
    assert made.image(first(made))[0][:, 0, 0].tolist() == [2, 0]
    with pytest.raises(BandError, match=r"no band 'rad'.*Did you mean 'red'"):
        open_geobench(folder, bands=["rad"])


def test_bands_of_several_types_and_sizes_come_as_one_image(tmp_path):
    folder = make_geobench(tmp_path, "m-so2sat", classes=17)
    key = json.loads((folder / "default_partition.json").read_text())["train"][0]
    coarse = {
        "04 - Red": np.full((8, 8), 0.5, "float64"),
        "11 - SWIR": np.full((4, 4), 2, "float32"),
    }
    geobench_sample(folder / f"{key}.hdf5", {**coarse, "01 - VH.Real": np.zeros((8, 8), "f4")}, 3)
    made = open_geobench(folder)
    assert [band.name for band in made.facts.bands] == ["04 - Red", "11 - SWIR", "01 - VH.Real"]
    assert made.facts.dtype == "float64"
    assert made.facts.bands[0].scale == 1.0
    assert (made.image(key)[0][1] == 2).all()
    geobench_sample(
        folder / f"{key}.hdf5", {"04 - Red": np.ones((8, 8)), "11 - SWIR": np.ones((3, 3))}, 3
    )
    with pytest.raises(SourceError, match=r"'11 - SWIR'.*3 x 3"):
        open_geobench(folder).image(key)


def test_layers_that_are_no_bands_are_left_out_with_a_note(tmp_path):
    folder = make_geobench(tmp_path, "m-NeonTree", kind="segmentation", classes=2,
                           bands=("Red", "Green", "Blue", "Canopy Height Model"), dtype="uint8")  # fmt: skip
    made = open_geobench(folder)
    assert [band.name for band in made.facts.bands] == ["Red", "Green", "Blue"]
    assert any("'Canopy Height Model' is not read" in note for note in made.facts.notes)


def test_names_of_bands_and_dates():
    assert split_date("04 - Red_2018-07-01") == ("04 - Red", "2018-07-01")
    assert split_date("04 - Red") == ("04 - Red", "")
    assert v1_band("08A - Vegetation Red Edge", V1["m-eurosat"]).common_name == "nir08"
    assert v1_band("05 - NIR", V1["m-forestnet"]).common_name == "nir08"
    assert v1_band("06 - SWIR1", V1["m-forestnet"]).common_name == "swir16"
    assert v1_band("07 - VH.LEE Filtered.Real", V1["m-so2sat"]).common_name is None


def rewritten(folder, key, bands, label, **kwargs):
    geobench_sample(folder / f"{key}.hdf5", bands, label, **kwargs)


def test_damage_is_named_in_one_sentence(tmp_path):
    folder = make_geobench(tmp_path)
    made = open_geobench(folder)
    one, two, three, four, five, six = made.parts["train"]
    path = folder / f"{one}.hdf5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    for call in (made.image, made.label, made.size):
        with pytest.raises(SourceError, match=f"{one}.hdf5 cannot be read as HDF5"):
            call(one)
    (folder / f"{two}.hdf5").unlink()
    with pytest.raises(SourceError, match="does not exist, though the partition"):
        made.image(two)
    ok = {name: np.zeros((8, 8), "uint16") for name in S2[1:4]}
    rewritten(folder, three, {k: v for k, v in ok.items() if k != "04 - Red"}, 0)
    with pytest.raises(SourceError, match="lacks the band '04 - Red'"):
        made.image(three)
    rewritten(folder, four, ok, 3)
    with pytest.raises(SourceError, match="has the label 3, but m-eurosat has the classes 0 to 2"):
        made.label(four)
    with h5py.File(folder / f"{five}.hdf5", "a") as file:
        file.attrs["pickle"] = "not bytes("
    with pytest.raises(SourceError, match="no text of bytes"):
        made.label(five)
    with h5py.File(folder / f"{six}.hdf5", "a") as file:
        del file.attrs["pickle"]
    with pytest.raises(SourceError, match="no attribute 'pickle'"):
        made.label(six)


def test_a_damaged_byte_anywhere_is_one_sentence_or_nothing(tmp_path):
    folder = make_geobench(tmp_path)
    made = open_geobench(folder)
    key = first(made)
    path = folder / f"{key}.hdf5"
    whole = path.read_bytes()
    said = 0
    for place in range(0, min(len(whole), 3000), 5):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 255]) + whole[place + 1 :])
        for call in (made.image, made.label, made.size):
            try:
                call(key)
            except SourceError as error:
                assert str(path) in str(error)  # noqa: PT017
                said += 1
    assert said > 20


def test_an_image_in_two_parts_is_refused(tmp_path):
    folder = make_geobench(tmp_path)
    path = folder / "default_partition.json"
    parts = json.loads(path.read_text())
    parts["test"].append(parts["train"][0])
    path.write_text(json.dumps(parts))
    with pytest.raises(SourceError, match=f"{parts['train'][0]} in train and in test"):
        open_geobench(folder)


def test_a_pixel_outside_the_classes_and_a_map_that_lacks_are_refused(tmp_path):
    folder = make_geobench(tmp_path, "m-nz-cattle", kind="segmentation", classes=2,
                           bands=("Red", "Green", "Blue"))  # fmt: skip
    made = open_geobench(folder)
    one, two = made.parts["test"][:2]
    bands = {name: np.zeros((4, 4), "uint8") for name in ("Red", "Green", "Blue")}
    rewritten(folder, one, bands, np.array([[0, 255], [2, 1]], "uint8"))
    with pytest.raises(SourceError, match="holds the label 2, but the classes are numbered 0 to 1"):
        made.label(one)
    assert made.label(one, Window(0, 0, 1, 2)).tolist() == [[0, 255]]
    rewritten(folder, two, bands, 0)
    with pytest.raises(SourceError, match="no dataset 'label'"):
        made.label(two)


class Evil:
    def __reduce__(self):
        import os

        return os.system, ("true",)


def test_a_hostile_pickle_in_either_place_is_refused(tmp_path):
    folder = make_geobench(tmp_path)
    made = open_geobench(folder)
    key = first(made)
    with h5py.File(folder / f"{key}.hdf5", "a") as file:
        file.attrs["pickle"] = str(pickle.dumps({"label": 0, "x": [Evil()]}))
    with pytest.raises(
        SourceError, match=rf"{key}.hdf5 holds a pickle that asks for (posix|nt).system"
    ):
        made.label(key)
    (folder / "task_specs.pkl").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(SourceError, match=r"task_specs.pkl holds a pickle that asks for"):
        open_geobench(folder)
    # The attribute is read as a literal, never as an expression.
    with h5py.File(folder / f"{key}.hdf5", "a") as file:
        file.attrs["pickle"] = "__import__('os').getcwd().encode()"
    with pytest.raises(SourceError, match="no text of bytes"):
        made.label(key)


def test_other_folders_are_refused_with_the_nearest_name(tmp_path):
    (tmp_path / "m-eurosatt").mkdir()
    with pytest.raises(SourceError, match="Did you mean 'm-eurosat'"):
        open_geobench(tmp_path / "m-eurosatt")
