"""Snapshots of the probe tiles: few, evenly spaced, the same after any interruption."""

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from geodino.errors import RunError
from geodino.pretrain.health import DenseHealth
from geodino.runs.snapshots import MOST_STEPS, MOST_TILES, Snapshots, kept


def measured(value=1.0, *, tiles=3):
    health = DenseHealth(torch.full((tiles, 3, 8, 8), 0.5), torch.ones(tiles, 8, 8).bool())
    health.maps = torch.full((tiles, 4, 2, 2), value)
    return health


def after(steps, *, every, have=()):
    """What is left when ``steps`` are measured one after the other."""
    left = set(have)
    for step in steps:
        left.add(step)
        left = kept(sorted(left), every=every)
    return left


def test_a_few_measurements_all_stay():
    assert after(range(0, 700, 100), every=100) == {0, 100, 200, 300, 400, 500, 600}


def test_more_are_thinned_to_every_second_then_fourth():
    assert after(range(0, 900, 100), every=100) == {0, 200, 400, 600, 800}
    assert after(range(0, 1601, 100), every=100) == {0, 400, 800, 1200, 1600}
    assert after([*range(0, 1001, 200), 1100], every=200) == {0, 200, 400, 600, 800, 1000, 1100}


@given(every=st.integers(1, 500), measurements=st.integers(1, 300), more=st.integers(0, 499))
def test_first_and_last_stay_and_the_rest_is_even(every, measurements, more):
    steps = [i * every for i in range(measurements)]
    last = steps[-1] + min(more, every - 1)
    left = sorted(after([*steps, last], every=every))
    assert len(left) <= MOST_STEPS
    assert (left[0], left[-1]) == (0, last)
    gaps = [b - a for a, b in pairwise(left[:-1])]
    assert len(set(gaps)) <= 1
    assert measurements < 3 or len(left) > 2


@given(
    every=st.integers(1, 50),
    measurements=st.integers(1, 200),
    killed=st.integers(0, 199),
    back=st.integers(0, 20),
)
def test_a_killed_run_ends_with_the_snapshots_of_one_that_was_not(
    every, measurements, killed, back
):
    steps = [i * every for i in range(measurements)]
    killed = min(killed, measurements - 1)
    again = max(killed - back, 0)  # the checkpoint it goes on from
    left = {s for s in after(steps[: killed + 1], every=every) if s <= steps[again]}
    assert after(steps[again:], every=every, have=left) == after(steps, every=every)


def test_crops_are_written_once_and_tokens_at_each_step(tmp_path):
    snapshots = Snapshots(tmp_path / "probes", every=10)
    for step in (0, 10):
        snapshots.save(step, measured(float(step), tiles=12))
        written = (tmp_path / "probes" / "crops.safetensors").stat().st_mtime_ns
    assert (tmp_path / "probes" / "crops.safetensors").stat().st_mtime_ns == written
    assert snapshots.steps() == [0, 10]
    crops, valid = snapshots.crops()
    assert crops.shape == (MOST_TILES, 3, 8, 8)
    assert valid.all()
    assert (snapshots.patches(10) == 10.0).all()
    stored = load_file(tmp_path / "probes" / "step-00000010.safetensors")
    assert stored["patches"].dtype == torch.float16


def test_a_long_run_keeps_few_files(tmp_path):
    snapshots = Snapshots(tmp_path / "probes", every=1)
    for step in range(40):
        snapshots.save(step, measured())
    assert snapshots.steps() == [0, 8, 16, 24, 32, 39]


def test_values_beyond_half_precision_stay_finite_and_nan_stays_nan(tmp_path):
    snapshots = Snapshots(tmp_path, every=1)
    snapshots.save(0, measured(1e9))
    assert (snapshots.patches(0) == 65504.0).all()
    snapshots.save(1, measured(float("nan")))
    assert snapshots.patches(1).isnan().all()


def test_a_resumed_run_forgets_what_it_does_again_and_halves_of_files(tmp_path):
    snapshots = Snapshots(tmp_path, every=10)
    for step in (0, 10, 20):
        snapshots.save(step, measured())
    (tmp_path / ".step-00000030.safetensors.99.tmp").write_bytes(b"half")
    snapshots.forget_after(10)
    assert {path.name for path in tmp_path.iterdir()} == {
        "crops.safetensors", "step-00000000.safetensors", "step-00000010.safetensors",
    }  # fmt: skip
    Snapshots(tmp_path / "nothing", every=10).forget_after(0)  # a run of an earlier version


def test_a_damaged_snapshot_is_named(tmp_path):
    snapshots = Snapshots(tmp_path, every=10)
    snapshots.save(0, measured())
    path = tmp_path / "step-00000000.safetensors"
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(RunError, match=r"step-00000000\.safetensors cannot be read"):
        snapshots.patches(0)


def test_probe_crops_know_where_they_are_valid_at_any_size():
    pixels = torch.full((1, 1, 4, 4), 7, dtype=torch.uint8)
    valid = torch.ones(1, 4, 4).bool()
    valid[0, 1, 1] = False
    cut = DenseHealth.from_chips(pixels, valid, mean=[5.0], std=[2.0], size=2)
    assert cut.valid.tolist() == [[[False, True], [True, True]]]
    assert cut.crops.tolist() == [[[[0.0, 1.0], [1.0, 1.0]]]]
    larger = DenseHealth.from_chips(pixels, valid, mean=[5.0], std=[2.0], size=8)
    assert larger.valid.shape == larger.crops.shape[-3:] == (1, 8, 8)
    assert larger.valid.sum() == 64 - 4
