"""Networks that two processes share compute what one process computes; any number resumes them."""

import os
import shutil
import signal
from pathlib import Path

import pytest
import torch
from process_support import Started, Strike, start_geodino
from safetensors.torch import load_file

from geodino.errors import CheckpointError, RecipeError
from geodino.files import read_lines
from geodino.runs.checkpoints import read_checkpoint, read_rest
from geodino.runs.export import export_run
from geodino.runs.pretrain import PretrainJob, pretrain

STEPS = 9
SETTINGS = (
    "phases.pretrain.steps=3",
    "phases.gram.steps=3",
    "phases.highres.steps=3",
    "phases.pretrain.lr.warmup=0",
    "phases.pretrain.objective.koleo_neighbours={kind: distributed, group: 4}",
    "phases.highres.sizes=[{global_size: 48, local_size: 16, gram_size: 64, batch: 8}]",
    "model.local_cls_norm=true",
    "model.activation_checkpointing=true",
    "train.group=2",
    "health.every=3",
    "checkpoint.every=3",
    "checkpoint.keep=9",
    "log.flush=3",
)


def started(tiles: Path, out: Path, devices: int, *more: str, strike=None) -> Started:
    overrides = [part for setting in SETTINGS for part in ("--set", setting)]
    begins = () if "--resume" in more else ("--recipe", "debug-three-phases", *overrides)
    return start_geodino(
        "pretrain", "--tiles", tiles, "--out", out, "--device", "cpu", "--devices", devices,
        *begins, *more, strike=strike,
    )  # fmt: skip


def finished(process: Started) -> str:
    done = process.wait()
    assert done.returncode == 0, done
    return done.stdout + done.stderr


def alone(tiles: Path, out: Path, **job) -> dict[str, object]:
    begins = {} if job.get("resume") else {"recipe": "debug-three-phases", "overrides": SETTINGS}
    return pretrain(
        PretrainJob(tiles=str(tiles), out=out, device="cpu", quiet=True, **begins, **job)
    )


@pytest.fixture(scope="module")
def one(tiles, tmp_path_factory) -> Path:
    """A run of three phases by one process."""
    out = tmp_path_factory.mktemp("cluster") / "one"
    alone(tiles, out)
    return out


@pytest.fixture(scope="module")
def shared(tiles, tmp_path_factory) -> Path:
    """The same run by two processes that share the networks."""
    out = tmp_path_factory.mktemp("cluster") / "shared"
    finished(started(tiles, out, 2, "--strategy", "fsdp"))
    return out


def steps_of(run: Path) -> list[dict[str, float]]:
    rows = {row["step"]: row for row in read_lines(run / "metrics.jsonl") if "loss/total" in row}
    return [rows[step] for step in sorted(rows)]


def agree(a: Path, b: Path) -> None:
    """Losses, health and the weights at the end, to what rounding allows."""
    assert len(steps_of(a)) == len(steps_of(b)) == STEPS
    for left, right in zip(steps_of(a), steps_of(b), strict=True):
        for name, value in left.items():
            if name.startswith(("loss/", "grad_norm/")):
                assert right[name] == pytest.approx(value, rel=1e-4), (left["step"], name)
    for name in ("model.safetensors", "heads.safetensors"):
        mine, theirs = (load_file(run / "model" / name) for run in (a, b))
        assert mine.keys() == theirs.keys()
        assert max(float((mine[key] - theirs[key]).abs().max()) for key in mine) < 1e-5


def as_it_was(run: Path, target: Path, step: int) -> Path:
    """A copy of a run that was stopped after ``step``."""
    shutil.copytree(run, target, symlinks=True)
    checkpoints, last = target / "checkpoints", target / "checkpoints" / "last.ckpt"
    for later in checkpoints.glob("step-*.ckpt"):
        if int(later.stem[5:]) > step:
            shutil.rmtree(later) if later.is_dir() else later.unlink()
    last.unlink()
    kept = checkpoints / f"step-{step:08d}.ckpt"
    last.symlink_to(kept.name) if kept.is_dir() else os.link(kept, last)
    shutil.rmtree(target / "model")
    return target


def test_two_processes_that_share_the_networks_equal_one_through_all_phases(one, shared):
    agree(one, shared)
    health = [
        [row["health/patch_rank"] for row in read_lines(run / "metrics.jsonl")
         if "health/patch_rank" in row]
        for run in (one, shared)
    ]  # fmt: skip
    assert health[1] == pytest.approx(health[0], rel=1e-3)


def test_two_processes_that_hold_everything_equal_one_through_all_phases(one, tiles, tmp_path):
    out = tmp_path / "ddp"
    finished(started(tiles, out, 2, "--strategy", "ddp"))
    agree(one, out)


def test_a_state_of_two_processes_holds_the_weights_of_one(one, shared):
    for step in (3, 6, 9):
        name = f"checkpoints/step-{step:08d}.ckpt"
        file, folder = (read_checkpoint(run / name) for run in (one, shared))
        assert folder["global_step"] == file["global_step"] == step
        assert folder["state_dict"].keys() == file["state_dict"].keys()
        for key, tensor in file["state_dict"].items():
            torch.testing.assert_close(folder["state_dict"][key], tensor, rtol=1e-4, atol=1e-5)
        (left,), (right,) = file["optimizer_states"], folder["optimizer_states"]
        assert left["state"].keys() == right["state"].keys()
        assert [g["params"] for g in left["param_groups"]] == [
            g["params"] for g in right["param_groups"]
        ]
        for number, moments in left["state"].items():
            assert float(moments["step"]) == float(right["state"][number]["step"])
            assert moments["exp_avg"].shape == right["state"][number]["exp_avg"].shape


def test_one_process_resumes_what_two_shared(one, shared, tiles, tmp_path):
    out = as_it_was(shared, tmp_path / "run", 6)
    done = alone(tiles, out, resume=True)
    assert done["step"] == STEPS
    agree(one, out)
    assert (out / "checkpoints" / "last.ckpt").is_file()


@pytest.mark.slow
def test_two_processes_share_what_one_began_and_four_go_on(one, tiles, tmp_path):
    out = as_it_was(one, tmp_path / "run", 3)
    strike = Strike(signal.SIGUSR1, "metrics.jsonl", 4)  # taken up, and then at step 6
    output = finished(started(tiles, out, 2, "--strategy", "fsdp", "--resume", strike=strike))
    assert "Stopped by SIGUSR1" in output
    finished(started(tiles, out, 4, "--strategy", "fsdp", "--resume"))
    agree(one, out)


def test_the_model_is_exported_from_the_parts(shared, tmp_path):
    done = export_run(shared, out=tmp_path / "model")
    assert done["step"] == STEPS
    for name in ("model.safetensors", "heads.safetensors"):
        assert (tmp_path / "model" / name).read_bytes() == (shared / "model" / name).read_bytes()


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda folder: (folder / "__1_0.distcp").unlink(), "its part __1_0.distcp is missing"),
        (lambda folder: truncated(folder / "__0_0.distcp"), "its part __0_0.distcp has .* bytes of"),
        (lambda folder: overwritten(folder / "__0_0.distcp"), "is damaged"),
        (lambda folder: (folder / ".metadata").unlink(), ".metadata is missing"),
        (lambda folder: truncated(folder / ".metadata"), "is damaged"),
        (lambda folder: (folder / "rest.pt").unlink(), "rest.pt is missing"),
        (lambda folder: truncated(folder / "rest.pt"), "is damaged"),
    ],
)  # fmt: skip
def test_a_damaged_part_is_one_clear_sentence(shared, tmp_path, harm, words):
    folder = tmp_path / "step-00000009.ckpt"
    shutil.copytree(shared / "checkpoints" / folder.name, folder)
    harm(folder)
    with pytest.raises(CheckpointError, match=rf"{folder.name}.*{words}.*ln -sfn"):
        read_checkpoint(folder)


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def overwritten(path: Path) -> None:
    path.write_bytes(b"\0" * path.stat().st_size)


def test_a_table_of_contents_that_would_run_code_is_refused(shared, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(shared / "checkpoints" / "step-00000009.ckpt", folder)
    (folder / ".metadata").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    with pytest.raises(CheckpointError, match=r"os\.system has no place"):
        read_rest(folder)


def test_a_number_of_devices_that_the_groups_do_not_allow_is_refused(one, tiles, tmp_path):
    out = as_it_was(one, tmp_path / "run", 3)
    with pytest.raises(RecipeError, match=r"8 samples, which 3 devices .* divides 4"):
        alone(tiles, out, resume=True, devices=3)
