"""The plan of memory, how networks are shared, and how often a step waits for its device."""

from collections import Counter
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.utils._python_dispatch import TorchDispatchMode

from geodino.errors import RunError
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.pretrain import teacher
from geodino.pretrain.module import PretrainModule
from geodino.pretrain.sharding import spread
from geodino.runs.build import build_course
from geodino.runs.memory import in_words, memory_plan
from geodino.runs.networks import assemble_network
from geodino.runs.pretrain import PretrainJob, pretrain
from geodino.runs.processes import Processes, parse_wanted, this_rank
from geodino.runs.recipe import load_recipe

P7B = 6_716_000_000


def contract() -> InputContract:
    return InputContract(
        bands=tuple(Band(name=name) for name in ("red", "green", "blue")),
        dtype="uint8", mean=(90.0,) * 3, std=(40.0,) * 3, low=(0.0,) * 3, high=(255.0,) * 3,
    )  # fmt: skip


def plan_of(name: str, *overrides: str, world: int, strategy: str, bfloat16: bool = True):
    config = load_recipe(name, overrides)
    return memory_plan(
        config,
        contract(),
        build_course(config),
        world=world,
        strategy=strategy,
        bfloat16=bfloat16,
    )


def test_the_plan_of_one_device_is_that_of_a_hand_count():
    small = ("phases.gram=null", "phases.highres=null", "train.batch=32")
    plan = plan_of("sat-vits16", *small, world=1, strategy="single")
    heads = 2 * (384 * 2048 + 2048 + 2048**2 + 2048 + 2048 * 256 + 256 + 256 * 65536)
    # The release counts 21,601,152 with its mask token; this one has no biases of Q, K and V.
    backbone = 21_601_152 - 12 * 3 * 384
    assert plan.weights == 4 * (backbone + heads) == plan.gradients == plan.teacher
    assert plan.moments == 2 * plan.weights
    assert plan.gram_teacher == plan.gathered == 0
    tokens = 32 * (2 * (16 * 16 + 5) + 8 * (7 * 7 + 5))
    assert plan.activations == tokens * 384 * 12 * 34
    masked = 2 * 32 * 256 * 0.5 * 0.3
    scores = 64 * 65536 + 65536 * 256 + masked * 65536 + 65536 * 256
    assert plan.scores == pytest.approx(4 * scores, rel=1e-3)


def test_sharing_divides_what_is_kept_and_checkpointing_what_a_step_keeps():
    alone = plan_of("sat-vit7b16", "train.batch=256", world=1, strategy="single")
    shared = plan_of("sat-vit7b16", world=256, strategy="fsdp")
    assert alone.weights > 4 * P7B
    assert shared.weights == pytest.approx(alone.weights / 256, rel=1e-3)
    assert shared.gram_teacher == pytest.approx(4 * P7B / 256, rel=1e-2)
    full = plan_of(
        "sat-vit7b16", "model.activation_checkpointing=false", world=256, strategy="fsdp"
    )
    assert full.activations > 8 * shared.activations
    assert shared.total < 80 * 2**30 < alone.total


def test_the_plan_holds_what_the_first_of_256_processes_holds():
    """Checked with a group of processes that exist in name only."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    config = load_recipe("sat-vit7b16")
    network = assemble_network(config, contract())
    dist.init_process_group("fake", store=FakeStore(), rank=0, world_size=256)
    try:
        mesh = init_device_mesh("cpu", (256,))
        for part in network.parts():
            spread(part, mesh, MixedPrecisionPolicy(), learns=True)
        held = sum(p.to_local().numel() for p in network.parameters())
    finally:
        dist.destroy_process_group()
    assert plan_of("sat-vit7b16", world=256, strategy="fsdp").weights == 4 * held


@pytest.mark.parametrize(
    ("recipe", "world", "strategy"),
    [
        ("sat-vit7b16", 1, "single"),
        ("sat-vitl16", 8, "ddp"),
        ("sat-vits16", 64, "ddp"),
        ("sat-vit7b16", 8, "fsdp"),
    ],
)
def test_above_vit_l_the_networks_are_shared(recipe, world, strategy):
    processes = Processes(device=torch.device("cpu"), devices=world)
    chosen, why = processes.strategy(load_recipe(recipe), contract())
    assert chosen == strategy
    if strategy == "fsdp":
        assert why == "6,716 M parameters in the backbone, more than 500 M"


def test_an_unknown_strategy_is_refused():
    with pytest.raises(RunError, match="--strategy deepspeed: expected auto, ddp or fsdp"):
        parse_wanted("deepspeed")


@pytest.mark.parametrize(
    ("environment", "rank"),
    [
        ({}, 0),
        ({"RANK": "9", "LOCAL_RANK": "1"}, 9),
        ({"SLURM_PROCID": "5"}, 5),
        ({"LOCAL_RANK": "1"}, 1),
        ({"NODE_RANK": "2", "LOCAL_RANK": "1"}, 9),
    ],
)
def test_a_process_knows_its_number_before_the_others_are_there(monkeypatch, environment, rank):
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert this_rank(devices=4) == rank


def test_tasks_that_slurm_did_not_start_are_missed_in_words(monkeypatch, tiles, tmp_path):
    slurm = {"SLURM_NTASKS": "4", "SLURM_JOB_NAME": "train", "SLURM_PROCID": "0",
             "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "1"}  # fmt: skip
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    job = PretrainJob(tiles=str(tiles), out=tmp_path / "run", recipe="debug", quiet=True)
    with pytest.raises(RunError, match=r"SLURM started 4 task\(s\), but --devices 1 --nodes 1"):
        pretrain(job)


def test_the_card_plans_a_cluster_without_allocating(tiles, tmp_path):
    before = torch.get_rng_state()
    facts = pretrain(
        PretrainJob(
            tiles=str(tiles), out=tmp_path / "run", recipe="sat-vit7b16", device="cpu", quiet=True,
            overrides=("data.chip=auto", "phases.highres=null",
                       "phases.pretrain.views.enlarge=true"),
            devices=8, nodes=32, dry_run=True,
        )
    )  # fmt: skip
    assert facts["device"].startswith("8 x cpu on each of 32 machines")
    assert facts["strategy"].startswith("fsdp: 6,716 M parameters")
    assert set(facts["memory_bytes"]) >= {"weights", "gradients", "moments", "teacher",
                                          "gram_teacher", "activations", "scores", "total"}  # fmt: skip
    assert facts["memory_bytes"]["weights"] < 4 * 1.1 * P7B / 256 * 1.1
    assert torch.equal(torch.get_rng_state(), before)
    assert not (tmp_path / "run").exists()


def test_bytes_in_words():
    assert [in_words(n) for n in (2**20, 2**30 // 20, 5 * 2**28, 250 * 2**30)] == [
        "1.0 MiB", "51.2 MiB", "1.2 GiB", "250 GiB",
    ]  # fmt: skip


class Waits(TorchDispatchMode):
    """Counts the operations that read a tensor back to the host, or need its values to go on."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "equal", "unique")

    def __init__(self) -> None:
        super().__init__()
        self.seen: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name.startswith(self.NAMES):
            self.seen[name] += 1
        return func(*args, **(kwargs or {}))


def test_a_step_never_waits_for_its_device(monkeypatch, tiles: Path, tmp_path: Path):
    """Through all phases; the teacher's update as on a GPU, since a CPU need not be waited for."""
    monkeypatch.setattr(teacher, "move_on_the_host", teacher.move_on_a_device)
    steps: list[Counter[str]] = []
    plain = PretrainModule.training_step

    def counted(self, batch, batch_idx):
        with Waits() as waits:
            plain(self, batch, batch_idx)
        steps.append(waits.seen)

    monkeypatch.setattr(PretrainModule, "training_step", counted)
    short = ("phases.pretrain.steps=4", "phases.gram.steps=4", "phases.highres.steps=4")
    pretrain(
        PretrainJob(tiles=str(tiles), out=tmp_path / "run", recipe="debug-three-phases",
                    overrides=short, device="cpu", quiet=True)
    )  # fmt: skip
    assert len(steps) == 12
    # The pairing of views is made on the host, once a phase.
    new = [0, 4, 8]
    assert [dict(seen) for n, seen in enumerate(steps) if n not in new] == [{}] * 9
    assert all(sum(steps[n].values()) <= 1 for n in new)
