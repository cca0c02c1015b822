import errno
import json

import numpy as np
import pytest

from geodino.errors import RunError
from geodino.files import (
    append_lines,
    finite,
    read_lines,
    sha256,
    write_json,
    write_text,
    write_with,
)


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail(temporary):
        temporary.write_text("half")
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        write_with(path, fail)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_a_full_disk_is_one_clear_sentence_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fill_the_disk(temporary):
        temporary.write_text("new")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(RunError, match=r"a\.txt could not be written: the disk is full"):
        write_with(path, fill_the_disk)
    assert path.read_text() == "old"


def test_a_device_that_is_always_full_is_reported_so():
    with pytest.raises(RunError, match="the disk is full"):
        append_lines("/dev/full", [{"step": 1}])


def test_lines_are_appended_and_a_line_cut_off_by_a_crash_is_left_out(tmp_path):
    path = tmp_path / "m.jsonl"
    append_lines(path, [{"step": 1, "loss": 0.5}, {"step": 2, "loss": float("nan")}])
    with path.open("a") as handle:
        handle.write('{"step": 3, "lo')
    assert read_lines(path) == [{"step": 1, "loss": 0.5}, {"step": 2, "loss": None}]


def test_numbers_that_are_not_finite_become_none_however_deep():
    given = {"a": (1, np.float32("nan"), [np.inf]), 2: {"b": np.float32(0.5), "c": True}}
    assert finite(given) == {"a": [1, None, [None]], "2": {"b": 0.5, "c": True}}
    assert type(finite(np.float32(0.5))) is float


def test_json_refuses_nan(tmp_path):
    with pytest.raises(ValueError, match="Out of range"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not (tmp_path / "x.json").exists()


def test_json_and_digest(tmp_path):
    write_json(tmp_path / "x.json", {"a": 1})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 1}
    (tmp_path / "abc").write_bytes(b"abc")
    # The test vector of FIPS 180-2.
    assert sha256(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")


def test_a_file_where_a_folder_should_be_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("here already")
    for path in (tmp_path / "file" / "a.json", tmp_path / "file" / "deep" / "a.json"):
        with pytest.raises(RunError, match=r"a\.json could not be written: .*Choose another --out"):
            write_text(path, "text")
    assert (tmp_path / "file").read_text() == "here already"
