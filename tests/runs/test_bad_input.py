"""One clear sentence for each mistake, exit code 2, nothing lost."""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from process_support import run_geodino
from tests_support import textured, write_tile

from geodino.errors import BandError, GeodinoError, RunError, SourceError
from geodino.runs.pretrain import PretrainJob, pretrain


def attempt(src: Path | str, tmp_path: Path, *overrides: str, **more: object) -> dict[str, object]:
    job = PretrainJob(
        tiles=str(src), out=tmp_path / "run", recipe="debug", overrides=overrides, quiet=True,
        device="cpu", **more,
    )  # fmt: skip
    return pretrain(job)


def nothing_was_written(tmp_path: Path) -> bool:
    return not (tmp_path / "run").exists()


def test_a_missing_path_is_named(tmp_path):
    with pytest.raises(SourceError, match="nowhere"):
        attempt(tmp_path / "nowhere", tmp_path)
    assert nothing_was_written(tmp_path)


def test_an_empty_folder_is_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="empty"):
        attempt(tmp_path / "empty", tmp_path)
    assert nothing_was_written(tmp_path)


def test_a_folder_without_a_readable_raster_says_why(tmp_path):
    folder = tmp_path / "tiles"
    folder.mkdir()
    (folder / "notes.tif").write_text("this is not a raster")
    with pytest.raises(SourceError, match=r"no readable raster.*notes\.tif"):
        attempt(folder, tmp_path)
    assert nothing_was_written(tmp_path)


@pytest.fixture
def with_a_truncated_tile(tmp_path) -> Path:
    folder = tmp_path / "tiles"
    for number in range(3):
        write_tile(folder / f"t{number}.tif", textured(number))
    broken = write_tile(folder / "broken.tif", textured(9))
    broken.write_bytes(broken.read_bytes()[: broken.stat().st_size // 2])
    return folder


def test_a_truncated_tile_among_good_ones_is_reported_and_counted(with_a_truncated_tile, tmp_path):
    card = attempt(with_a_truncated_tile, tmp_path, dry_run=True)
    assert card["tiles_unusable"] == 1
    assert any("broken.tif" in note for note in card["notes"])


def test_a_truncated_tile_is_fatal_with_strict(with_a_truncated_tile, tmp_path):
    with pytest.raises(SourceError, match=r"broken\.tif"):
        attempt(with_a_truncated_tile, tmp_path, strict=True)
    assert nothing_was_written(tmp_path)


def test_mixed_band_counts_name_two_files_and_the_cure(tmp_path):
    write_tile(tmp_path / "tiles" / "rgb.tif", textured(0))
    write_tile(tmp_path / "tiles" / "five.tif", textured(1, bands=5))
    with pytest.raises(BandError) as caught:
        attempt(tmp_path / "tiles", tmp_path)
    message = str(caught.value)
    assert "rgb.tif" in message
    assert "five.tif" in message
    assert "data.bands" in message


def test_mixed_dtypes_name_two_files(tmp_path):
    write_tile(tmp_path / "tiles" / "a.tif", textured(0))
    write_tile(tmp_path / "tiles" / "b.tif", textured(1, dtype="uint16"))
    with pytest.raises(BandError, match="uint16"):
        attempt(tmp_path / "tiles", tmp_path)


def test_a_source_without_a_valid_pixel_says_so(tmp_path):
    write_tile(tmp_path / "tiles" / "a.tif", np.zeros((3, 96, 96), "uint8"), nodata=0)
    with pytest.raises(SourceError, match="valid"):
        attempt(tmp_path / "tiles", tmp_path)
    assert nothing_was_written(tmp_path)


def test_a_chip_larger_than_every_tile_names_the_largest(tiles, tmp_path):
    with pytest.raises(SourceError, match=r"512.*larger than every tile.*96"):
        attempt(tiles, tmp_path, "data.chip=512")


def test_a_device_that_is_not_there_is_refused(tiles, tmp_path):
    job = PretrainJob(tiles=str(tiles), out=tmp_path / "run", device="cuda:7")
    with pytest.raises(RunError, match="cuda:7"):
        pretrain(job)


def test_groups_that_devices_cannot_share_are_refused(tiles, tmp_path):
    with pytest.raises(GeodinoError, match="3 devices in whole groups of 4"):
        attempt(tiles, tmp_path, devices=3)


def test_the_command_line_gives_one_message_and_exit_code_2(tmp_path):
    done = run_geodino(
        "pretrain", "--tiles", "nowhere", "--recipe", "debug", "--out", tmp_path / "r"
    )
    assert done.returncode == 2
    assert done.stderr.startswith("geodino: ")
    assert "nowhere" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--recipe", "laptp"), "Did you mean 'laptop'?"),
        (("--recipe", "debug", "--set", "train.bacth=4"), "Did you mean 'batch'?"),
    ],
)
def test_wrong_recipes_and_keys_exit_with_2(tiles, tmp_path, arguments, said):
    done = run_geodino("pretrain", "--tiles", tiles, "--out", tmp_path / "r", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_stops_the_run_with_its_checkpoints_intact(tiles, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not allow a small disk to be mounted")
    try:
        done = run_geodino(
            "pretrain", "--tiles", tiles, "--recipe", "debug", "--out", f"{disk}/run",
            "--set", "checkpoint.keep=50", "--set", "checkpoint.every=1",
        )  # fmt: skip
        assert done.returncode == 2, done.stderr
        assert "the disk is full" in done.stderr
        assert "Traceback" not in done.stderr
        kept = sorted((disk / "run" / "checkpoints").glob("step-*.ckpt"))
        assert kept
        assert (disk / "run" / "checkpoints" / "last.ckpt").samefile(kept[-1])
    finally:
        subprocess.run(["umount", str(disk)], check=True)
