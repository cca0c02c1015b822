"""Two processes compute what one process computes with the same global batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

from geodino.files import read_lines

SETTINGS = ["phases.pretrain.steps=6", "model.drop_path=0.3", "model.rope.rescale=2.0",
            "data.memory_mb=1", "phases.pretrain.lr.warmup=0", "log.flush=2"]  # fmt: skip


def run(tiles: Path, out: Path, devices: int) -> None:
    overrides = [part for setting in SETTINGS for part in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "geodino", "pretrain", "--tiles", str(tiles), "--recipe", "debug",
         "--out", str(out), "--device", "cpu", "--devices", str(devices), *overrides],
        capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def one_and_two(tiles, tmp_path_factory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("ranks")
    run(tiles, folder / "one", 1)
    run(tiles, folder / "two", 2)
    return folder / "one", folder / "two"


def test_losses_of_two_processes_average_to_those_of_one(one_and_two):
    """The shown loss is rank zero's share; the reduced total must equal the single process's."""
    one, two = (
        [row for row in read_lines(run / "metrics.jsonl") if "loss/total" in row]
        for run in one_and_two
    )
    assert [row["step"] for row in two] == [row["step"] for row in one]
    for a, b in zip(one, two, strict=True):
        for name in ("loss/total", "loss/dino", "loss/ibot", "loss/koleo", "grad_norm/backbone"):
            assert b[name] == pytest.approx(a[name], rel=1e-4), (a["step"], name)


def test_weights_after_the_steps_agree_to_1e_5(one_and_two):
    one, two = (load_file(run / "model" / "model.safetensors") for run in one_and_two)
    assert one.keys() == two.keys()
    worst = max(float((one[name] - two[name]).abs().max()) for name in one)
    assert worst < 1e-5
    heads = [load_file(run / "model" / "heads.safetensors") for run in one_and_two]
    assert max(float((heads[0][n] - heads[1][n]).abs().max()) for n in heads[0]) < 1e-5
