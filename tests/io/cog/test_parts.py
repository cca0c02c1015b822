"""The parts folder: shards, kills, damage, another job, a full disk, bounded memory."""

import json
import os
import shutil
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import rasterio
from cog_support import grid_of, layer_of, layout_of, spool
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.errors import RunError
from geodino.io.cog.assemble import assemble
from geodino.io.cog.layout import Layout
from geodino.io.cog.parts import PartsWriter, parts_folder

NAN = float("nan")


def example():
    """Two layers, 4 x 3 supertiles, overviews inside of them and above."""
    rng = np.random.default_rng(5)
    heights = rng.normal(20, 5, (1, 230, 190)).astype(np.float32)
    heights[:, 60:140, :70] = NAN
    colours = rng.integers(1, 255, (3, 230, 190)).astype(np.uint8)
    maps = {
        "heights": (layer_of(heights, nodata=NAN, name="heights"), heights),
        "colours": (
            layer_of(colours, nodata=0.0, name="colours", interleave="pixel", colours=True),
            colours,
        ),
    }
    return layout_of(heights, block=16, side=64), maps


def assembled(folder, layout, maps):
    """Bytes of both files."""
    found = []
    for name, (layer, _) in maps.items():
        assemble(folder, folder.parent / f"{name}.tif", layer, layout=layout, key={})
        found.append((folder.parent / f"{name}.tif").read_bytes())
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What an uninterrupted process writes."""
    layout, maps = example()
    folder = tmp_path_factory.mktemp("whole") / "parts"
    spool(folder, layout, maps)
    return folder, assembled(folder, layout, maps)


def test_several_layers_lie_in_one_folder_and_become_a_file_each(whole):
    _, maps = example()
    for name, (_, values) in maps.items():
        with rasterio.open(whole[0].parent / f"{name}.tif") as found:
            np.testing.assert_array_equal(found.read(), values)
    assert sorted(p.name for p in whole[0].iterdir()) == ["1-of-1.jsonl", "1-of-1.tiles"]


def test_the_bytes_do_not_depend_on_shards_or_their_order(tmp_path, whole):
    layout, maps = example()
    for shard in (3, 1, 2):
        numbers = [n for n in range(len(layout)) if n % 3 == shard - 1][::-1]
        spool(tmp_path / "parts", layout, maps, numbers=numbers, shard=(shard, 3))
    assert assembled(tmp_path / "parts", layout, maps) == whole[1]


def test_a_stop_after_every_commit_changes_nothing(tmp_path, whole):
    layout, maps = example()
    for number in range(len(layout)):
        spool(tmp_path / "parts", layout, maps, numbers=[number])
    assert assembled(tmp_path / "parts", layout, maps) == whole[1]


@settings(max_examples=6)
@given(journal=st.floats(0, 1), orphans=st.integers(0, 5000))
def test_a_journal_cut_at_any_byte_goes_on_to_the_same_file(
    tmp_path_factory, whole, journal, orphans
):
    # Tiles are on the disk before the journal tells of them: the spool is never the shorter one.
    layout, maps = example()
    folder = tmp_path_factory.mktemp("cut") / "parts"
    shutil.copytree(whole[0], folder)
    lines, tiles = folder / "1-of-1.jsonl", folder / "1-of-1.tiles"
    os.truncate(lines, round(journal * lines.stat().st_size))
    with tiles.open("ab") as handle:
        handle.write(b"x" * orphans)
    spool(folder, layout, maps)
    assert assembled(folder, layout, maps) == whole[1]


KILLED = """
import sys, time
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from cog_support import spool
from test_parts import example
layout, maps = example()
for number in range(len(layout)):
    spool(Path(sys.argv[2]), layout, maps, numbers=[number])
    print(number, flush=True)
    time.sleep(0.05)
"""


def test_a_killed_process_is_followed_by_one_that_finishes(tmp_path, whole):
    layout, maps = example()
    here = Path(__file__).parent
    command = [sys.executable, "-c", KILLED, str(here), str(tmp_path / "parts")]
    paths = os.pathsep.join([str(here.parents[1]), str(here.parents[2])])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": paths}
    ) as process:
        for _ in range(3):
            process.stdout.readline()
        time.sleep(0.03)
        process.kill()
    spool(tmp_path / "parts", layout, maps)
    assert assembled(tmp_path / "parts", layout, maps) == whole[1]


def test_what_was_committed_is_told_with_its_digest_and_facts(tmp_path):
    layout, maps = example()
    spool(tmp_path, layout, maps, numbers=[4], shard=(1, 2))
    layers = [layer for layer, _ in maps.values()]
    with PartsWriter(tmp_path, layout=layout, layers=layers, key={}, shard=(2, 2)) as parts:
        assert list(parts.committed) == [4]
        assert parts.committed[4].digest == "digest of 4"
        assert parts.committed[4].facts == {"seconds": 1.5}


def test_supertiles_may_be_open_side_by_side(tmp_path, whole):
    layout, maps = example()
    layers = [layer for layer, _ in maps.values()]
    with PartsWriter(tmp_path / "parts", layout=layout, layers=layers, key={}) as parts:
        for first in range(0, len(layout), layout.columns):
            row = [parts.open_supertile(first + i) for i in range(layout.columns)]
            for block_row in range(layout.block_rows(first)):
                for i, supertile in enumerate(row):
                    rows, columns = layout.block_window(first + i, block_row).slices
                    supertile.write(
                        block_row, {n: v[:, rows, columns] for n, (_, v) in maps.items()}
                    )
            for i, supertile in enumerate(row):
                supertile.commit(f"digest of {first + i}", seconds=1.5)
    assert assembled(tmp_path / "parts", layout, maps) == whole[1]


def test_parts_of_another_job_are_refused_and_what_differs_is_named(tmp_path):
    layout, maps = example()
    spool(tmp_path, layout, maps, numbers=[0], key={"model": "a", "overlap": 64})
    with pytest.raises(RunError, match=r'another job: key.model was "a", now "b"\. Repeat'):
        spool(tmp_path, layout, maps, key={"model": "b", "overlap": 64}, shard=(2, 2))
    other = Layout(layout.grid, 16, 32, layout.levels)
    with pytest.raises(RunError, match=r"layout\.side was 64, now 32; key\.model was"):
        spool(tmp_path, other, maps)
    heights, values = maps["heights"]
    coarse = {"heights": (layer_of(values, nodata=-1.0, name="heights"), values)}
    with pytest.raises(RunError, match=r"layers\.heights\.nodata was NaN, now -1\.0"):
        spool(tmp_path, layout, coarse)
    assert heights.nodata != heights.nodata
    # Where only the file is made, the key may be left out; another one is refused all the same.
    with pytest.raises(RunError, match="11 of 12 parts are missing"):
        assemble(tmp_path, tmp_path / "a.tif", heights, layout=layout)
    with pytest.raises(RunError, match="another job"):
        assemble(tmp_path, tmp_path / "a.tif", heights, layout=layout, key={"model": "c"})


def test_shards_of_different_jobs_do_not_become_one_map(tmp_path):
    layout, maps = example()
    spool(tmp_path / "a", layout, maps, numbers=range(6), key={"model": "a"}, shard=(1, 2))
    spool(tmp_path / "b", layout, maps, numbers=range(6, 12), key={"model": "b"}, shard=(2, 2))
    shutil.copytree(tmp_path / "b", tmp_path / "a", dirs_exist_ok=True)
    with pytest.raises(RunError, match="another job"):
        assemble(tmp_path / "a", tmp_path / "a.tif", maps["heights"][0], layout=layout)


def test_missing_supertiles_are_named_unless_they_may_be_missing(tmp_path):
    layout, maps = example()
    layer, values = maps["heights"]
    spool(tmp_path / "parts", layout, maps, numbers=[0, 1, 2, 3, 5, 6, 8, 9, 10, 11])
    path = tmp_path / "a.tif"
    with pytest.raises(RunError, match=r"2 of 12 parts are missing \(4, 7\)\. Run the shards"):
        assemble(tmp_path / "parts", path, layer, layout=layout)
    assert not path.exists()
    assemble(tmp_path / "parts", path, layer, layout=layout, allow=[4, 7])
    expected = values.copy()
    for number in (4, 7):
        expected[(slice(None), *layout.window(number).slices)] = NAN
    with rasterio.open(path) as found:
        np.testing.assert_array_equal(found.read(), expected)


def test_a_supertile_committed_twice_must_be_the_same(tmp_path, whole):
    layout, maps = example()
    spool(tmp_path / "parts", layout, maps, shard=(1, 2))
    spool(tmp_path / "again", layout, maps, numbers=[3], shard=(2, 2))
    shutil.copytree(tmp_path / "again", tmp_path / "parts", dirs_exist_ok=True)
    assert assembled(tmp_path / "parts", layout, maps) == whole[1]
    line = tmp_path / "parts" / "2-of-2.jsonl"
    line.write_text(line.read_text().replace("digest of 3", "other digest"))
    with pytest.raises(
        RunError, match=r"supertile 3 twice, and they differ: digest of 3 in 1-of-2"
    ):
        assemble(tmp_path / "parts", tmp_path / "a.tif", maps["heights"][0], layout=layout)


def test_a_spool_that_was_not_copied_whole_is_refused(tmp_path, whole):
    layout, maps = example()
    shutil.copytree(whole[0], tmp_path / "parts")
    tiles = tmp_path / "parts" / "1-of-1.tiles"
    os.truncate(tiles, tiles.stat().st_size - 1)
    with pytest.raises(RunError, match=r"1-of-1\.tiles is cut off: supertile 11 ends at byte"):
        assemble(tmp_path / "parts", tmp_path / "a.tif", maps["heights"][0], layout=layout)


def test_a_damaged_spool_is_noticed_and_no_file_is_left(tmp_path, whole):
    layout, maps = example()
    shutil.copytree(whole[0], tmp_path / "parts")
    tiles = tmp_path / "parts" / "1-of-1.tiles"
    tiles.write_bytes(bytes(tiles.stat().st_size))
    with pytest.raises(RunError, match=r"1-of-1\.tiles is damaged: no tile of"):
        assemble(tmp_path / "parts", tmp_path / "a.tif", maps["heights"][0], layout=layout)
    assert [p.name for p in tmp_path.iterdir()] == ["parts"]


def test_rows_out_of_order_or_of_another_shape_are_mistakes_of_the_caller(tmp_path):
    layout, maps = example()
    values = {n: v[:, :16, :64] for n, (_, v) in maps.items()}
    layers = [layer for layer, _ in maps.values()]
    with PartsWriter(tmp_path, layout=layout, layers=layers, key={}) as parts:
        supertile = parts.open_supertile(0)
        with pytest.raises(ValueError, match="waits for row 0"):
            supertile.write(1, values)
        with pytest.raises(ValueError, match="takes float32 of shape"):
            supertile.write(0, {**values, "heights": values["heights"][:, :8]})
        supertile.write(0, values)
        with pytest.raises(ValueError, match="has 1 of 4 rows"):
            supertile.commit("d")


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small disk needs root")
def test_a_full_disk_is_told_and_what_was_committed_stays(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("this machine does not allow a small disk to be mounted")
    values = np.random.default_rng(0).normal(size=(1, 1024, 1024)).astype(np.float32)  # 4 MiB
    layer = layer_of(values, nodata=NAN)
    layout = layout_of(values, block=64, side=256)
    try:
        with pytest.raises(RunError, match=r"1-of-1\.tiles could not be written: the disk is full"):
            spool(disk / "parts", layout, {"map": (layer, values)})
        with PartsWriter(disk / "parts", layout=layout, layers=[layer], key={}) as parts:
            done = set(parts.committed)
        assert 0 < len(done) < len(layout)
        rest = [n for n in range(len(layout)) if n not in done]
        with pytest.raises(RunError, match=r"a\.tif could not be written: the disk is full"):
            assemble(disk / "parts", disk / "a.tif", layer, layout=layout, allow=rest)
        assert [p.name for p in disk.iterdir()] == ["parts"]
        assemble(disk / "parts", tmp_path / "a.tif", layer, layout=layout, allow=rest)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    with rasterio.open(tmp_path / "a.tif") as found:
        place = layout.window(0).slices
        np.testing.assert_array_equal(found.read(1)[place], values[0][place])


def test_memory_does_not_grow_with_the_rows_of_the_map(tmp_path):
    width, peaks = 128, []
    row = np.arange(width, dtype=np.uint8)
    for height in (4_096, 20_480):
        values = np.broadcast_to(row, (1, height, width))
        layer = layer_of(values, nodata=None)
        layout = layout_of(values, block=128, side=512)
        folder = tmp_path / f"{height}.tif.parts"
        tracemalloc.start()
        spool(folder, layout, {"map": (layer, values)})
        assemble(folder, tmp_path / f"{height}.tif", layer, layout=layout)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Five times the rows are 2 MiB more pixels; 32 supertiles more are told of in some lines.
    assert peaks[1] - peaks[0] < 100_000


def test_between_rows_only_half_filled_rows_of_overviews_are_held(tmp_path):
    values = np.zeros((2, 512, 512), dtype=np.float32)
    layer = layer_of(values, nodata=None)
    layout = layout_of(values, block=64, side=512)
    held = []
    with PartsWriter(tmp_path, layout=layout, layers=[layer], key={}) as parts:
        supertile = parts.open_supertile(0)
        for number in range(layout.block_rows(0)):
            rows, columns = layout.block_window(0, number).slices
            supertile.write(number, {"map": values[:, rows, columns]})
            held.append(supertile.held)
    # Half a row of level 1 is 2 bands x 32 x 256 x 4 bytes; a level up it is half as wide.
    half = 2 * 32 * 256 * 4
    assert held[:4] == [half, half // 2, half + half // 2, half // 4]
    assert held[-1] == 0


def test_the_folder_lies_beside_the_file_and_its_journal_is_plain_json(tmp_path):
    layout, maps = example()
    folder = parts_folder(tmp_path / "map.tif")
    spool(folder, layout, maps, numbers=[0])
    assert folder == tmp_path / "map.tif.parts"
    lines = [json.loads(line) for line in (folder / "1-of-1.jsonl").read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == ["job", "supertile"]
    assert grid_of(maps["heights"][1]).crs == lines[0]["job"]["grid"]["crs"]
