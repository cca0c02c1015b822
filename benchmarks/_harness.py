"""What all benchmarks share: interleaved rounds, medians of CPU-seconds and wall, table, JSON.

A shared machine's wall times swing by a factor of six within minutes, CPU-seconds of one process
by a few per cent. So every case runs once in every round, in turn, in one process; what is
reported is the median over rounds, and ratios of CPU-seconds, never an absolute rate alone.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from geodino.runs.device import keep_freed_memory

PACKAGES = ("torch", "torchvision", "timm", "lightning", "numpy", "rasterio", "torchgeo")


@dataclass(frozen=True, slots=True)
class Timing:
    """Medians over the rounds; ``rounds_cpu_s`` keeps every round, in order."""

    cpu_s: float
    wall_s: float
    rounds_cpu_s: tuple[float, ...]


def interleave(
    cases: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, Timing]:
    """Run every case once per round, in turn; an unmeasured first round warms caches up.

    A single round is only a check that the benchmark runs: nothing is warmed up for it.
    """
    cpu: dict[str, list[float]] = {name: [] for name in cases}
    wall: dict[str, list[float]] = {name: [] for name in cases}
    unmeasured = int(warm_up and rounds > 1)
    for number in range(rounds + unmeasured):
        for name, case in cases.items():
            wall_0, cpu_0 = time.perf_counter(), time.process_time()
            case()
            if number >= unmeasured:
                cpu[name].append(time.process_time() - cpu_0)
                wall[name].append(time.perf_counter() - wall_0)
    return {
        name: Timing(statistics.median(cpu[name]), statistics.median(wall[name]), tuple(cpu[name]))
        for name in cases
    }


def ratio(timings: Mapping[str, Timing], slow: str, fast: str) -> float:
    """How many times more CPU ``slow`` needs than ``fast``: the median of the rounds' ratios."""
    pairs = zip(timings[slow].rounds_cpu_s, timings[fast].rounds_cpu_s, strict=True)
    return statistics.median(a / max(b, 1e-9) for a, b in pairs)


def table(
    title: str,
    timings: Mapping[str, Timing],
    *,
    work: Mapping[str, float] | float,
    unit: str,
    ours: str,
) -> str:
    """Lay the cases out, one a line: rates, seconds, and how many times faster ``ours`` is.

    Args:
        title: the first line.
        timings: from :func:`interleave`, all cases having done comparable work.
        work: how many ``unit`` a run of a case does; one number where it is the same for all.
        unit: what is counted, such as ``windows``.
        ours: the case all others are compared with, per unit of work and CPU-second.
    """
    amount = {name: work if isinstance(work, int | float) else work[name] for name in timings}
    rows = [("case", f"{unit}/CPU-s", f"{unit}/s", "CPU s", "wall s", f"{ours} is faster by")]
    for name, t in timings.items():
        gain = ratio(timings, name, ours) * amount[ours] / amount[name]
        rates = (amount[name] / max(s, 1e-9) for s in (t.cpu_s, t.wall_s))
        seconds = (t.cpu_s, t.wall_s)
        rows.append(
            (name, *(f"{r:,.1f}" for r in rates), *(f"{s:.3f}" for s in seconds), f"{gain:.2f} x")
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]) for row in rows
    ]
    return "\n".join([title, *lines])


def machine() -> dict[str, object]:
    """What the numbers were taken on: processor, threads, versions."""
    return {
        "cpu": _cpu_name(),
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "versions": {name: _version(name) for name in PACKAGES},
    }


def main(run: Callable[[int, bool], dict], argv: Sequence[str] | None = None) -> None:
    """Run a benchmark as a script; ``run(rounds, small)`` returns figures.

    A key ``tables`` (list of str) in what it returns is printed; all is written with ``--json``.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="measured rounds (default 5)")
    parser.add_argument("--small", action="store_true", help="tiny sizes: does it run at all?")
    parser.add_argument("--json", type=Path, help="write figures and machine facts here")
    parser.add_argument(
        "--keep-memory",
        action="store_true",
        help="keep freed memory, as a training run on a CPU does; peers and limits profit too",
    )
    options = parser.parse_args(argv)
    if options.keep_memory:
        keep_freed_memory()
    result = run(options.rounds, options.small)
    print("\n\n".join(result.get("tables", [])))
    if options.json:
        text = json.dumps({"machine": machine(), **result}, indent=1, default=_plain)
        options.json.write_text(text + "\n", encoding="utf-8")


def _plain(value: object) -> object:
    if isinstance(value, Timing):
        return {"cpu_s": value.cpu_s, "wall_s": value.wall_s, "rounds_cpu_s": value.rounds_cpu_s}
    return str(value)


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
