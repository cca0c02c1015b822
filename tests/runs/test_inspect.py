"""The command `inspect`: exit codes, text, JSON, the page."""

import json
import re
import subprocess
import sys

import pytest
from inspection_support import noise, write
from process_support import run_geodino

from geodino.errors import RecipeError, SourceError
from geodino.runs.inspect.job import InspectJob, inspect


def command(*arguments):
    return run_geodino("inspect", *arguments)


def job(*sources, **more):
    return inspect(InspectJob(sources=tuple(map(str, sources)), quiet=True, **more))


@pytest.fixture
def archive(tmp_path):
    for i in range(3):
        write(tmp_path / f"src/{i}.tif", noise(4, seed=i), at=(i, 0), photometric="MINISBLACK")
    return tmp_path / "src"


def test_the_command_prints_facts_and_questions(archive):
    done = command(archive)
    assert done.returncode == 0, done.stderr
    assert "4 bands of uint8" in done.stdout
    assert "3 of 64 x 64 px" in done.stdout
    assert "--set 'data.band_names=[NAME_1,NAME_2,NAME_3,NAME_4]'" in done.stdout


def test_json_is_complete_and_has_no_nan(archive):
    for i in range(20):
        (archive / f"broken_{i}.tif").write_text("no raster")
    done = command(archive, "--json")
    (found,) = json.loads(done.stdout, parse_constant=pytest.fail)["sources"]
    assert len(found["unreadable"]) == 20
    assert found["kinds"][0]["bands"][0]["values"]["valid_share"] == 1.0


def test_text_folds_long_lists(archive):
    for i in range(20):
        (archive / f"broken_{i}.tif").write_text("no raster")
    text = job(archive).text
    assert text.count("no raster" if "no raster" in text else "broken_") <= 15
    assert "20 files in all" in text


@pytest.mark.parametrize("name", ["nowhere", "empty"])
def test_a_source_that_holds_nothing_exits_with_2(tmp_path, name):
    (tmp_path / "empty").mkdir()
    done = command(tmp_path / name)
    assert done.returncode == 2
    assert done.stderr.startswith("geodino: ")
    assert name in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_of_broken_files_is_shown_and_exits_with_2(tmp_path):
    (tmp_path / "a.tif").write_text("no raster")
    done = command(tmp_path)
    assert done.returncode == 2
    assert "a.tif" in done.stdout
    assert "holds no readable raster" in done.stderr


def test_strict_shows_everything_and_exits_with_2(archive):
    (archive / "broken.tif").write_text("no raster")
    assert command(archive).returncode == 0
    done = command(archive, "--strict")
    assert done.returncode == 2
    assert "4 bands of uint8" in done.stdout
    assert "1 of 4 files" in done.stderr


def test_declarations_are_the_keys_of_a_recipe_and_mistakes_are_told(archive):
    named = job(archive, overrides=("data.band_names=[red,green,blue,nir]",))
    bands = named.inspections[0].kinds[0].bands
    assert [band.common_name for band in bands] == ["red", "green", "blue", "nir"]
    with pytest.raises(RecipeError, match="Did you mean 'bands'"):
        job(archive, overrides=("data.bandz=[1]",))
    with pytest.raises(RecipeError, match=r"data\.\* only"):
        job(archive, overrides=("train.batch=4",))


def test_shorthands_filter(archive):
    with pytest.raises(SourceError, match=r"data\.where"):
        job(archive, where="width > 1000")
    with pytest.raises(SourceError, match=r"data\.datetime"):
        job(archive, datetime="2020-01-01/2020-12-31")
    with pytest.raises(SourceError, match=r"data\.aoi"):
        job(archive, aoi="nowhere.geojson")


def test_files_named_one_by_one_are_one_source_and_folders_are_each_one(archive, tmp_path):
    files = sorted(archive.iterdir())
    write(tmp_path / "other/a.tif", noise(4))
    found = job(*files, tmp_path / "other").inspections
    assert [(one.scenes, one.source) for one in found] == [
        (3, "3 files"), (1, str(tmp_path / "other")),
    ]  # fmt: skip


def test_bands_named_file_by_file_are_read_as_scenes(shared_data):
    files = sorted((shared_data / "timeseries/landsat8_ny_2018").glob("*/*.TIF"))
    (found,) = job(*files).inspections
    assert (found.files, found.scenes, len(found.kinds)) == (95, 19, 1)
    other = shared_data / "timeseries/naip_2dates/chico_2020_0.tif"
    (mixed,) = job(*files, other).inspections
    assert [kind.tiles for kind in mixed.kinds] == [19, 1]
    assert mixed.questions[0].topic == "formats"


def test_fewer_pixels_are_read_when_asked(archive):
    (found,) = job(archive, pixels=64 * 64).inspections
    assert found.kinds[0].sampled.pixels_read == 64 * 64
    assert "drawn from all tiles" in " ".join(job(archive, pixels=64 * 64).text.split())


def test_the_page_is_one_file_that_fetches_nothing_and_escapes_names(tmp_path):
    write(tmp_path / "src" / "<script>alert(1)<&script>.tif", noise(1), names=("<b>bold</b>",))
    (tmp_path / "src" / "<i>broken.tif").write_text("no raster")
    job(tmp_path / "src", html=tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "<b>bold" not in page
    assert "<i>broken" not in page
    assert "&lt;b&gt;bold" in page
    assert not re.search(r"""(?:src|href)=|url\(|@import|https?://""", page)
    assert "prefers-color-scheme: dark" in page
    assert page.count("<svg") == 1


def test_the_page_of_the_same_archive_is_the_same(archive, tmp_path):
    job(archive, html=tmp_path / "a.html")
    job(archive, html=tmp_path / "b.html")
    assert (tmp_path / "a.html").read_bytes() == (tmp_path / "b.html").read_bytes()


def test_a_draft_is_written_once_and_said(archive, tmp_path):
    said = job(archive, draft=tmp_path / "mine").text
    assert "it finds 3 scenes" in said
    with pytest.raises(SourceError, match="exists already"):
        job(archive, draft=tmp_path / "mine")
    with pytest.raises(SourceError, match="one source"):
        job(archive, tmp_path / "mine", draft=tmp_path / "other")


def test_inspecting_loads_no_torch(archive):
    code = (
        "import sys\nfrom geodino.runs.inspect.job import InspectJob, inspect\n"
        f"inspect(InspectJob(sources=({str(archive)!r},), quiet=True)).text\n"
        "assert 'torch' not in sys.modules, 'torch was loaded'"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_progress_is_told_file_by_file_and_window_by_window(archive):
    from geodino.data.config import DataConfig
    from geodino.data.inspection.source import inspect as look_through

    told = []
    look_through(str(archive), DataConfig(), threads=2, progress=lambda *args: told.append(args))
    assert [args for args in told if args[0] == "files"] == [("files", i, 3) for i in (1, 2, 3)]
    assert [args for args in told if args[0] == "windows"][-1] == ("windows", 3, 3)
