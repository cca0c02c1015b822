import numpy as np
import pytest
from labelled_support import hdf5, write_tif
from PIL import Image

from geodino.data.labelled import torchgeo_set
from geodino.data.labelled.sets import LabelledSet
from geodino.data.labelled.torchgeo_set import TORCHGEO, find_torchgeo, open_torchgeo
from geodino.errors import SourceError
from geodino.geo.windows import Window

pytest.importorskip("torchgeo")

PARTS = ("train", "val", "test")
TIF = "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"


def eurosat(root, lists="eurosat"):
    for number, part in enumerate(PARTS):
        names = []
        for k, name in enumerate(("Forest", "River")):
            pixels = np.stack([np.full((8, 8), 100 * k + band, "uint16") for band in range(13)])
            write_tif(root / TIF / name / f"{name}_{number}.tif", pixels)
            names.append(f"{name}_{number}.jpg")
        (root / f"{lists}-{part}.txt").write_text("\n".join(names))
    return root


def pictures(root, folder, lists, ending):
    for number, part in enumerate(PARTS):
        for k, name in enumerate(("beach", "forest")):
            path = root / folder / name / f"{name}_{number}.{ending}"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((256, 256, 3), 90 * k + number, "uint8")).save(path)
        names = [f"{name}_{number}.{ending}" for name in ("beach", "forest")]
        (root / f"{lists}-{part}.txt").write_text("\n".join(names))
    return root


@pytest.mark.parametrize(
    ("name", "lists"), [("EuroSAT", "eurosat"), ("EuroSATSpatial", "eurosat-spatial")]
)
def test_eurosat_is_read_with_its_bands_and_parts(tmp_path, name, lists):
    made = open_torchgeo(name, eurosat(tmp_path, lists))
    assert isinstance(made, LabelledSet)
    assert made.facts.classes == ("Forest", "River")
    assert [len(made.parts[part]) for part in PARTS] == [2, 2, 2]
    key = made.parts["val"][1]
    pixels, valid = made.image(key, Window(1, 2, 3, 4))
    assert pixels.shape == (13, 3, 4)
    assert pixels[:, 0, 0].tolist() == [100 + band for band in range(13)]
    assert valid.all()
    assert made.label(key) == 1
    assert made.facts.bands[12].name == "B8A"
    assert made.size(key) == (8, 8)
    assert any("torchgeo" in note for note in made.facts.notes)
    assert made.fingerprint == open_torchgeo(name, tmp_path).fingerprint


@pytest.mark.parametrize(
    ("name", "folder", "lists", "ending"),
    [
        ("RESISC45", "NWPU-RESISC45", "resisc45", "jpg"),
        ("UCMerced", "UCMerced_LandUse/Images", "uc_merced", "tif"),
    ],
)
def test_picture_folders_are_read(tmp_path, name, folder, lists, ending):
    made = open_torchgeo(name, pictures(tmp_path, folder, lists, ending))
    assert made.facts.classes == ("beach", "forest")
    key = made.parts["test"][1]
    pixels, _ = made.image(key)
    assert pixels.shape == (3, 256, 256)
    assert abs(float(pixels.mean()) - 92) < 2
    assert made.label(key) == 1


def test_so2sat_is_read_from_its_tables(tmp_path):
    for name, count in (("training", 3), ("validation", 1), ("testing", 2)):
        label = np.eye(17)[np.arange(count)]
        arrays = {
            "sen1": np.zeros((count, 32, 32, 8)), "sen2": np.full((count, 32, 32, 10), 0.25),
            "label": label,
        }  # fmt: skip
        (tmp_path / f"{name}.h5").write_bytes(hdf5(arrays))
    made = open_torchgeo("So2Sat", tmp_path)
    assert [len(made.parts[part]) for part in PARTS] == [3, 1, 2]
    assert [made.label(key) for key in made.parts["train"]] == [0, 1, 2]
    pixels, _ = made.image(made.parts["test"][0])
    assert pixels.shape == (10, 32, 32)
    assert (pixels == 0.25).all()
    assert len(made.facts.classes) == 17


@pytest.mark.parametrize("name", list(TORCHGEO))
def test_what_is_missing_is_named_with_its_cure(tmp_path, name):
    missing = find_torchgeo(name, tmp_path)
    assert TORCHGEO[name].needs[0] in missing.reason
    assert "download=True" in missing.cure
    assert "no folder" in find_torchgeo(name, None).reason
    with pytest.raises(SourceError, match="is not there"):
        open_torchgeo(name, tmp_path)
    assert not any(tmp_path.iterdir())


def test_an_archive_is_not_unpacked(tmp_path):
    eurosat(tmp_path)
    (tmp_path / "ds").rename(tmp_path / "other")
    (tmp_path / "EuroSATallBands.zip").write_bytes(b"PK")
    assert TIF in find_torchgeo("EuroSAT", tmp_path).reason


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(SourceError, match="Did you mean 'EuroSAT'"):
        find_torchgeo("EuroSATT", None)


class Fake:
    """A data set as a later torchgeo may hand it out."""

    classes = ("a", "b")

    def __init__(self, root, split, **options):
        self.shape = (1, 13, 4, 4) if split != "test" else (2, 13, 4, 4)

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return {"image": np.ones(self.shape), "label": np.int64(5)}


def test_an_axis_of_one_date_is_dropped_and_more_are_refused(tmp_path, monkeypatch):
    from types import SimpleNamespace

    library = SimpleNamespace(datasets=SimpleNamespace(EuroSAT=Fake), __version__="0.10.1")
    monkeypatch.setattr(torchgeo_set, "_library", lambda: library)
    made = open_torchgeo("EuroSAT", eurosat(tmp_path))
    assert made.image("train/000000")[0].shape == (13, 4, 4)
    with pytest.raises(SourceError, match="another version"):
        made.image("test/000000")
    with pytest.raises(SourceError, match="label 5 of 2 classes"):
        made.label("train/000000")
    with pytest.raises(SourceError, match=r"torchgeo 0.10.1 has no data set UCMerced"):
        open_torchgeo("UCMerced", pictures(tmp_path, "UCMerced_LandUse/Images", "uc_merced", "tif"))
