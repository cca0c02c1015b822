"""What it costs to share a run's networks among processes, and to save their state.

On two processes of the CPU (gloo): CPU-seconds a sample of one process, of two that hold everything
(DDP) and of two that share everything (FSDP2), each once a round, in turn. Correct: their losses
agree. Saving: how long training stands still for a state that is written at once, and for one that
is copied and written in the background, beside a plain copy of the same bytes in memory. Correct:
the state read back is the one that was there when saving began. Waits: how often a step reads from
its device.
"""

import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.distributed as dist
from _harness import main
from torch.distributed.checkpoint.state_dict_saver import async_save, save
from torch.utils._python_dispatch import TorchDispatchMode

import geodino  # noqa: F401  (lets timm import beside a CPU-only torch)
from geodino.cli.main import app
from geodino.data.generated.worlds import write_world
from geodino.files import read_lines, write_json
from geodino.pretrain import teacher
from geodino.pretrain.module import PretrainModule
from geodino.runs.checkpoints import load_tensors
from geodino.runs.pretrain import PretrainJob, pretrain

FULL = ("laptop", "train.batch=16", "train.group=8", "phases.pretrain.steps=12")
SMALL = ("debug", "phases.pretrain.steps=3")
QUIET = ("health.every=1000000", "checkpoint.every=1000000", "log.every=1", "log.flush=1000000")

AS_RANK = "--as-rank"

CASES = {"1 process": (1, "auto"), "2, DDP": (2, "ddp"), "2, FSDP2": (2, "fsdp")}


class Reads(TorchDispatchMode):
    """Counts the operations that read a tensor back to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "equal"):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def as_rank(folder: Path, arguments: Sequence[str]) -> None:
    """Train as one rank, and write the CPU-seconds this process had used after each step.

    Lightning starts the other ranks with the same command. Each counts for itself, from its first
    step on: starting, preparing and exporting take many times the CPU of the steps in between, and
    a rank whose parent ended before it would be in nobody's count of children.
    """
    used: list[float] = []
    plain = PretrainModule.training_step

    def counted(self, batch, batch_idx):
        plain(self, batch, batch_idx)
        used.append(time.process_time())

    PretrainModule.training_step = counted
    app(list(arguments), standalone_mode=False)
    write_json(folder / f"cpu-{os.environ.get('LOCAL_RANK', '0')}.json", used)


def trained(tiles: Path, out: Path, settings: tuple[str, ...], case: str) -> dict[str, object]:
    """Train in processes of their own; CPU-seconds of all ranks from the end of the first step."""
    devices, strategy = CASES[case]
    recipe, *overrides = (*settings, *QUIET)
    counts = out.with_name(f"{out.name}-cpu")
    counts.mkdir()
    command = [sys.executable, __file__, AS_RANK, str(counts), "pretrain", "--tiles", str(tiles),
               "--recipe", recipe, "--out", str(out), "--device", "cpu", "--devices", str(devices),
               "--strategy", strategy, "--quiet"]  # fmt: skip
    command += [part for override in overrides for part in ("--set", override)]
    began = time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    # Its output is read to the end, so all ranks have ended when this returns.
    subprocess.run(command, check=True, env=environment, capture_output=True)
    steps = int(settings[-1].rpartition("=")[2])
    used = [json.loads(path.read_text()) for path in sorted(counts.glob("cpu-*.json"))]
    assert [len(of_rank) for of_rank in used] == [steps] * devices, "a rank or a step is missing"
    cpu = sum(of_rank[-1] - of_rank[0] for of_rank in used)
    losses = [row["loss/total"] for row in read_lines(out / "metrics.jsonl") if "loss/total" in row]
    return {"cpu_s": cpu, "wall_s": time.perf_counter() - began, "losses": losses}


def sharing(tiles: Path, folder: Path, rounds: int, small: bool) -> tuple[str, dict[str, object]]:
    """CPU-seconds a sample, all ranks together, without what comes before and after the steps."""
    settings = SMALL if small else FULL
    steps = int(settings[-1].rpartition("=")[2])
    batch = 8 if small else 16
    cases = ["1 process", "2, FSDP2"] if small else list(CASES)
    each: dict[str, list[float]] = {case: [] for case in cases}
    losses: dict[str, object] = {}
    for number in range(rounds):
        for case in cases:
            out = folder / f"{number}-{case.replace(' ', '')}"
            found = trained(tiles, out, settings, case)
            each[case].append(found["cpu_s"] / (batch * (steps - 1)))
            losses[case] = found["losses"]
    first = torch.tensor(losses["1 process"])
    worst = max(float(((torch.tensor(of) - first) / first).abs().max()) for of in losses.values())
    assert worst < 1e-3, f"the cases learn different things: {worst}"
    median = {case: sorted(values)[len(values) // 2] for case, values in each.items()}
    lines = [f"CPU-seconds a sample ({settings[0]}); losses agree to {worst:.0e}"]
    lines += [
        f"{case:<10}  {1000 * value:8.1f} ms  {value / max(median['1 process'], 1e-9):5.2f} x"
        for case, value in median.items()
    ]
    return "\n".join(lines), {"cpu_s_per_sample": median, "loss_difference": worst}


def saving(folder: Path, rounds: int, small: bool) -> tuple[str, dict[str, object]]:
    """How long training stands still for a state, in milliseconds a GB."""
    numbers = (1 if small else 128) * 2**20
    state = {f"t{i}": torch.full((numbers // 8,), float(i)) for i in range(8)}
    gigabytes = 4 * numbers / 1e9
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    stood: dict[str, list[float]] = {"copy": [], "written at once": [], "in the background": []}
    try:
        for number in range(rounds + 1):
            began = time.perf_counter()
            copies = [tensor.clone() for tensor in state.values()]
            copied = time.perf_counter() - began
            del copies
            began = time.perf_counter()
            save(state, checkpoint_id=folder / f"sync-{number}")
            written = time.perf_counter() - began
            began = time.perf_counter()
            future = async_save(state, checkpoint_id=folder / f"async-{number}")
            begun = time.perf_counter() - began
            before = {name: tensor.clone() for name, tensor in state.items()}
            for tensor in state.values():
                tensor.add_(1.0)  # training goes on while it is being written
            future.result()
            read = {name: torch.empty_like(tensor) for name, tensor in state.items()}
            load_tensors(folder / f"async-{number}", read, together=False)
            assert all(torch.equal(read[name], before[name]) for name in read)
            if number:  # the first round warms up
                for name, seconds in zip(stood, (copied, written, begun), strict=True):
                    stood[name].append(seconds)
    finally:
        dist.destroy_process_group()
    median = {n: 1000 * sorted(v)[len(v) // 2] / gigabytes for n, v in stood.items()}
    lines = [f"Training stands still, ms a GB ({gigabytes:.2f} GB)"]
    lines += [
        f"{name:<18}  {value:8.0f} ms  {value / max(median['copy'], 1e-9):5.2f} x a copy"
        for name, value in median.items()
    ]
    return "\n".join(lines), {"stall_ms_per_gb": median}


def waiting(tiles: Path, folder: Path) -> tuple[str, dict[str, object]]:
    """Count what a step reads back to the host, with the teacher's update of a GPU."""
    steps: list[int] = []
    plain, on_host = PretrainModule.training_step, teacher.move_on_the_host

    def counted(self, batch, batch_idx):
        with Reads() as reads:
            plain(self, batch, batch_idx)
        steps.append(sum(reads.seen.values()))

    recipe, *overrides = (*SMALL, *QUIET)
    PretrainModule.training_step, teacher.move_on_the_host = counted, teacher.move_on_a_device
    try:
        pretrain(
            PretrainJob(tiles=str(tiles), out=folder / "waits", recipe=recipe, quiet=True,
                        overrides=tuple(overrides), device="cpu")
        )  # fmt: skip
    finally:
        PretrainModule.training_step, teacher.move_on_the_host = plain, on_host
    # The first one pairs the views, on the host, once for all steps.
    assert steps[0] <= 1, steps
    assert sum(steps[1:]) == 0, f"steps wait for their device: {steps}"
    text = f"Reads back to the host inside a step, after the first: {sum(steps[1:])}"
    return text, {"reads_per_step": sum(steps[1:]) / len(steps[1:])}


def run(rounds: int, small: bool) -> dict[str, object]:
    with TemporaryDirectory() as place:
        folder = Path(place)
        tiles = write_world("demo", folder / "world")
        parts = [
            saving(folder, rounds, small),
            waiting(tiles, folder),
            sharing(tiles, folder, rounds, small),
        ]
    figures = {key: value for _, part in parts for key, value in part.items()}
    return {"tables": [text for text, _ in parts], **figures}


if __name__ == "__main__":
    if sys.argv[1:2] == [AS_RANK]:
        as_rank(Path(sys.argv[2]), sys.argv[3:])
    else:
        main(run)
