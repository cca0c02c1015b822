"""Drafted descriptors: they load, they find the files, and they never overwrite."""

import json

import numpy as np
import pytest
from inspection_support import noise, write

from geodino.data.config import DataConfig
from geodino.data.index import build_index
from geodino.data.inspection.draft import write_draft
from geodino.data.inspection.source import examine
from geodino.data.inspection.survey import survey
from geodino.data.sources.descriptor import load_descriptor
from geodino.errors import SourceError


def drafted(src, folder, **declared):
    config = DataConfig(**declared)
    found = survey(str(src), config, threads=2)
    return write_draft(found, examine(found, config, pixels=2**20, threads=2), folder)


def test_a_draft_is_a_source_that_reads_what_was_inspected(tmp_path):
    for i in range(3):
        write(tmp_path / f"archive/x/{i}.tif", noise(4, seed=i), at=(i, 0),
              names=("red", "green", "blue", "nir"))  # fmt: skip
    done = drafted(tmp_path / "archive", tmp_path / "mine")
    assert (done.scenes, done.left_out) == (3, 0)
    index = build_index(tmp_path / "mine", DataConfig(), threads=1)
    assert [band.common_name for band in index.bands] == ["red", "green", "blue", "nir"]
    assert len(index.tiles) == 3


def test_a_draft_may_lie_in_the_archive_itself(tmp_path):
    write(tmp_path / "a.tif", noise())
    drafted(tmp_path, tmp_path)
    assert len(build_index(tmp_path, DataConfig(), threads=1).tiles) == 1


def test_evidence_about_alpha_and_nodata_is_written_down(shared_data, tmp_path):
    naip = load_descriptor(drafted(shared_data / "tiles", tmp_path / "naip").path)
    assert naip.alpha == "band"
    assert [band.name for band in naip.bands] == ["red", "green", "blue", "band_4"]
    neon = load_descriptor(drafted(shared_data / "canopy/neon_teak/RGB", tmp_path / "neon").path)
    assert neon.nodata == "ignore"


def test_only_the_most_frequent_kind_is_described_and_the_others_are_named(shared_data, tmp_path):
    done = drafted(shared_data / "canopy", tmp_path)
    assert (done.scenes, done.left_out) == (26, 27)
    index = build_index(tmp_path, DataConfig(), threads=1)
    assert (len(index.tiles), index.dtype) == (26, "float32")
    assert "Not described here: 369 bands of int16" in done.path.read_text()


def test_files_of_one_band_are_put_together_as_their_names_say(tmp_path):
    for day in ("20200101", "20200111"):
        for band in ("B02", "B03", "B8A"):
            write(tmp_path / f"archive/S_{day}_{band}.tif", noise(1, dtype="uint16"))
    done = drafted(tmp_path / "archive", tmp_path / "mine")
    index = build_index(tmp_path / "mine", DataConfig(), threads=1)
    assert done.scenes == len(index.tiles) == 2
    assert [band.name for band in index.bands] == ["B02", "B03", "B8A"]


def test_the_commented_answer_about_dates_works_when_it_is_taken(tmp_path):
    for day in ("20200101", "20200111"):
        write(tmp_path / f"archive/tile_{day}.tif", noise())
    path = drafted(tmp_path / "archive", tmp_path / "mine").path
    lines = path.read_text().splitlines()
    answers = [line.removeprefix("#   ") for line in lines if line.startswith("#   ")]
    dates = [line for line in answers if line.startswith(("files:", "date_format:"))]
    kept = [line for line in lines if not line.startswith("files:")]
    path.write_text("\n".join([*kept, *dates]))
    index = build_index(tmp_path / "mine", DataConfig(), threads=1)
    assert [tile.datetime[:10] for tile in index.tiles] == ["2020-01-01", "2020-01-11"]


def test_a_known_format_is_copied_with_its_place(shared_data, tmp_path):
    done = drafted(shared_data / "timeseries/landsat8_ny_2018", tmp_path)
    descriptor = load_descriptor(done.path)
    assert descriptor.quality.classes == "landsat-c1-bqa"
    assert done.scenes == 19


def test_what_is_declared_is_written_down(tmp_path):
    write(tmp_path / "archive/a.tif", noise(2, dtype="uint16"))
    declared = {"band_names": ("red", "nir"), "scale": 0.0001, "offset": -0.1, "nodata": 0.0}
    descriptor = load_descriptor(drafted(tmp_path / "archive", tmp_path / "m", **declared).path)
    assert [(b.name, b.scale, b.offset) for b in descriptor.bands] == [
        ("red", 0.0001, -0.1), ("nir", 0.0001, -0.1),
    ]  # fmt: skip
    assert descriptor.nodata == 0.0


def test_an_existing_descriptor_is_never_overwritten(tmp_path):
    write(tmp_path / "archive/a.tif", noise())
    (tmp_path / "dataset.yaml").write_text("mine")
    with pytest.raises(SourceError, match="exists already"):
        drafted(tmp_path / "archive", tmp_path)
    assert (tmp_path / "dataset.yaml").read_text() == "mine"


def test_sources_that_describe_themselves_need_no_draft(tmp_path):
    path = write(tmp_path / "a.tif", np.ones((1, 8, 8), "uint8"))
    asset = {"href": str(path), "type": "image/tiff", "eo:bands": [{"name": "B1"}]}
    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "x", "geometry": None, "links": [],
        "properties": {"datetime": "2020-01-01T00:00:00Z"}, "assets": {"B1": asset},
    }  # fmt: skip
    collection = {"type": "FeatureCollection", "features": [item]}
    (tmp_path / "items.json").write_text(json.dumps(collection))
    with pytest.raises(SourceError, match="needs no descriptor"):
        drafted(tmp_path / "items.json", tmp_path / "mine")
