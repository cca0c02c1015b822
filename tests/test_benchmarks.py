"""Benchmarks run once, with tiny sizes, so that they cannot rot; nothing here is timed."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
NAMES = sorted(path.stem for path in BENCHMARKS.glob("bench_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_the_benchmark_runs_and_its_correctness_checks_hold(name, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    # No benchmark looks at the report of a run it makes, and plots cost more than its few steps.
    monkeypatch.setattr("geodino.runs.train.Training._report", lambda _: {})
    module = importlib.import_module(name)
    try:
        result = module.run(rounds=1, small=True)
        assert result["tables"]
    finally:
        sys.modules.pop(name, None)
