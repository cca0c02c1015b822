"""Killed at any moment and resumed, a run ends bit for bit as one that was never stopped."""

import shutil
import signal
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
from process_support import Strike, run_geodino

from geodino.errors import CheckpointError, RunError
from geodino.files import read_lines
from geodino.runs.pretrain import PretrainJob, pretrain

UNREPEATABLE = {"time", "images_per_s", "data_wait", "memory_gib"}


def start(tiles: Path, out: Path, *more: str, strike: Strike | None = None):
    return run_geodino(
        "pretrain", "--tiles", tiles, "--recipe", "debug", "--out", out, "--device", "cpu", *more,
        strike=strike,
    )  # fmt: skip


def finished(done: CompletedProcess) -> str:
    assert done.returncode == 0, done
    return done.stdout + done.stderr


def numbers(run: Path) -> list[dict[str, object]]:
    rows = read_lines(run / "metrics.jsonl")
    return [{k: v for k, v in row.items() if k not in UNREPEATABLE} for row in rows]


def same(a: Path, b: Path) -> None:
    for name in ("model.safetensors", "heads.safetensors"):
        assert (a / "model" / name).read_bytes() == (b / "model" / name).read_bytes()
    snapshots = sorted(path.name for path in (a / "probes").iterdir())
    assert snapshots == sorted(path.name for path in (b / "probes").iterdir())
    for name in snapshots:
        assert (a / "probes" / name).read_bytes() == (b / "probes" / name).read_bytes()
    order = lambda row: (row["step"], "loss/total" not in row)  # noqa: E731
    assert sorted(numbers(a), key=order) == sorted(numbers(b), key=order)


@pytest.mark.parametrize(
    ("strike", "going_on"),
    [
        (Strike(signal.SIGKILL, "step-00000015.ckpt"), "Going on from step 10 of"),  # all but saved
        (Strike(signal.SIGKILL, "last.ckpt", 2), "Going on from step 5 of"),  # saved, not the last
    ],
)
def test_kill_9_and_resume_equals_the_uninterrupted_run_bit_for_bit(
    debug_run, tiles, tmp_path, strike, going_on
):
    out = tmp_path / "killed"
    assert start(tiles, out, strike=strike).returncode == -signal.SIGKILL
    assert not (out / "model").exists()
    output = finished(start(tiles, out, "--resume"))
    assert going_on in output
    same(debug_run, out)


def test_sigterm_saves_the_state_and_the_resumed_run_ends_the_same(debug_run, tiles, tmp_path):
    out = tmp_path / "stopped"
    strike = Strike(signal.SIGTERM, "step-00000005.tmp")
    output = finished(start(tiles, out, strike=strike))
    assert "Stopped by SIGTERM" in output
    assert not (out / "model").exists()
    finished(start(tiles, out, "--resume"))
    same(debug_run, out)


def copy_of(run: Path, target: Path) -> Path:
    shutil.copytree(run, target)
    return target


def resume(tiles: Path, out: Path, **more: object) -> None:
    pretrain(PretrainJob(tiles=str(tiles), out=out, resume=True, quiet=True, **more))


def test_resuming_a_finished_run_changes_nothing(debug_run, tiles, tmp_path):
    out = copy_of(debug_run, tmp_path / "run")
    resume(tiles, out)
    same(debug_run, out)


def test_resuming_with_another_recipe_names_the_differences(debug_run, tiles, tmp_path):
    out = copy_of(debug_run, tmp_path / "run")
    with pytest.raises(RunError, match=r"another recipe.*train\.seed: 0 -> 1"):
        resume(tiles, out, recipe="debug", seed=1)


def test_a_checkpoint_of_another_recipe_is_refused(debug_run, tiles, tmp_path):
    out = copy_of(debug_run, tmp_path / "run")
    path = out / "checkpoints" / "last.ckpt"
    state = torch.load(path, weights_only=True)
    state["geodino"]["recipe"] = "0" * 64
    path.unlink()
    torch.save(state, path)
    with pytest.raises(CheckpointError, match="a checkpoint of another recipe"):
        resume(tiles, out)


def test_a_truncated_checkpoint_is_one_clear_sentence(debug_run, tiles, tmp_path):
    out = copy_of(debug_run, tmp_path / "run")
    path = out / "checkpoints" / "last.ckpt"
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match=r"last\.ckpt is damaged .* older step-"):
        resume(tiles, out)


def test_there_is_nothing_to_resume_in_an_empty_place(tiles, tmp_path):
    with pytest.raises(RunError, match="holds no run to resume"):
        resume(tiles, tmp_path / "nothing")


def test_tiles_that_changed_since_are_noticed(debug_run, tiles, tmp_path):
    moved = copy_of(tiles, tmp_path / "tiles")
    out = tmp_path / "run"
    small = ("phases.pretrain.steps=5",)
    pretrain(PretrainJob(tiles=str(moved), out=out, recipe="debug", overrides=small, quiet=True))
    first = min(moved.glob("*.tif"))
    first.write_bytes(first.read_bytes()[:-1] + b"\x07")
    with pytest.raises(RunError, match=r"tiles of .* changed"):
        resume(moved, out)
