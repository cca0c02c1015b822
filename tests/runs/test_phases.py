"""Pretraining, Gram anchoring and high-resolution adaptation in one run."""

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from geodino.errors import RecipeError
from geodino.files import read_lines
from geodino.runs.build import check_sizes
from geodino.runs.prepare import prepare
from geodino.runs.pretrain import PretrainJob, pretrain
from geodino.runs.recipe import load_recipe

UNREPEATABLE = {"time", "images_per_s", "data_wait", "memory_gib"}
EVERY_STEP = ("checkpoint.every=1", "checkpoint.keep=40", "log.flush=1")


def run(tiles, out, *overrides, resume=False, recipe="debug-three-phases"):
    job = PretrainJob(
        tiles=str(tiles),
        out=out,
        recipe=None if resume else recipe,
        overrides=overrides,
        device="cpu",
        resume=resume,
        quiet=True,
    )
    return pretrain(job)


def numbers(out):
    rows = read_lines(out / "metrics.jsonl")
    return sorted(
        ({k: v for k, v in row.items() if k not in UNREPEATABLE} for row in rows),
        key=lambda row: (row["step"], "loss/total" not in row),
    )


def state_at(out, step):
    path = out / "checkpoints" / f"step-{step:08d}.ckpt"
    return torch.load(path, weights_only=True)["state_dict"]


def part(state, prefix):
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}


def equal(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture(scope="module")
def three(tiles, tmp_path_factory) -> Path:
    """A finished run of three phases (12, 8, 8 steps) with the state of every step."""
    out = tmp_path_factory.mktemp("phases") / "three"
    run(tiles, out, *EVERY_STEP)
    return out


def test_the_phases_follow_each_other_in_one_run(three):
    rows = [row for row in numbers(three) if "loss/total" in row]
    assert [row["step"] for row in rows] == list(range(28))
    assert [row["phase"] for row in rows] == ["pretrain"] * 12 + ["gram"] * 8 + ["highres"] * 8
    assert ["loss/gram" in row for row in rows] == [False] * 12 + [True] * 16
    assert rows[12]["gram_weight"] == 0.0
    assert rows[16]["gram_weight"] == 2.0
    assert rows[11]["local_weight"] == 1.0
    assert rows[16]["local_weight"] == 0.5


def test_the_gram_teacher_is_the_healthiest_teacher_until_it_is_refreshed(three):
    health = {row["step"]: row["health/cls_patch_cosine"] for row in numbers(three)
              if "health/cls_patch_cosine" in row}  # fmt: skip
    # Untrained weights (step 0) may look healthy too, and are no teacher.
    best = min((4, 8, 12), key=lambda step: health[step])
    gram = part(state_at(three, 14), "gram_teacher.")
    assert equal(gram, part(state_at(three, best), "teacher.backbone."))
    # Refreshed before the fourth, seventh and tenth step of the phase, which has eight.
    assert equal(
        part(state_at(three, 16), "gram_teacher."), part(state_at(three, 15), "teacher.backbone.")
    )
    after = part(state_at(three, 19), "gram_teacher.")
    assert equal(after, part(state_at(three, 18), "teacher.backbone."))
    assert equal(part(state_at(three, 28), "gram_teacher."), after)


def test_where_nothing_was_measured_the_gram_teacher_is_the_one_at_the_start(tiles, tmp_path):
    out = tmp_path / "run"
    settings = ("phases.pretrain.steps=3", "phases.gram.steps=2", "phases.highres=null",
                "health.every=100", "health.after=1")  # fmt: skip
    run(tiles, out, *EVERY_STEP, *settings)
    held = part(state_at(out, 5), "gram_teacher.")
    assert equal(held, part(state_at(out, 3), "teacher.backbone."))


def test_high_resolution_begins_from_the_teacher_with_a_fresh_optimiser(three):
    path = three / "checkpoints" / "step-00000021.ckpt"
    (moments,) = torch.load(path, weights_only=True)["optimizer_states"]
    assert {float(state["step"]) for state in moments["state"].values()} == {1.0}
    before, after = state_at(three, 20), state_at(three, 21)
    # The first step has learning rate 0 (warm-up), so the student still is what it began with.
    begun, teacher = part(after, "student."), part(before, "teacher.")
    assert max(float((begun[k] - teacher[k]).abs().max()) for k in teacher) < 1e-6
    assert not equal(part(before, "student."), teacher)


@pytest.mark.parametrize("step", [5, 12, 14, 20, 26])
def test_a_run_resumed_in_any_phase_ends_bit_for_bit_as_the_whole_one(three, tiles, tmp_path, step):
    out = tmp_path / "run"
    shutil.copytree(three, out)
    for later in out.glob("checkpoints/step-*.ckpt"):
        if int(later.stem[5:]) > step:
            later.unlink()
    (out / "checkpoints" / "last.ckpt").unlink()
    shutil.copy(out / "checkpoints" / f"step-{step:08d}.ckpt", out / "checkpoints" / "last.ckpt")
    shutil.rmtree(out / "model")
    run(tiles, out, resume=True)
    for name in ("model.safetensors", "heads.safetensors"):
        assert (out / "model" / name).read_bytes() == (three / "model" / name).read_bytes()
    assert numbers(out) == numbers(three)


def test_crop_sizes_take_turns_and_batches_hold_the_memory(three):
    recorded = load_recipe(str(three / "recipe.yaml"))
    highres = recorded.phases.highres
    # 2 x 32^2 + 4 x 16^2 = 3,072 pixels a sample; 8 samples of them are 4 of 2 x 48^2 + 4 x 16^2.
    assert [sizes.batch for sizes in highres.sizes] == [4, 4]
    assert highres.chip == 96  # twice the largest crop, as far as the tiles allow


def test_health_that_turns_down_begins_the_gram_phase_and_says_why(tiles, tmp_path):
    out = tmp_path / "auto"
    settings = ("phases.gram.start=auto", "health.every=2", "health.patience=1",
                "health.tolerance=0.0", "health.watch=patch_rank", "health.after=0")  # fmt: skip
    done = run(tiles, out, *EVERY_STEP, *settings)
    rows = [row for row in numbers(out) if "loss/total" in row]
    first = next(row["step"] for row in rows if row["phase"] == "gram")
    health = [(row["step"], row["health/patch_rank"]) for row in numbers(out)
              if "health/patch_rank" in row]  # fmt: skip
    turned = next(
        step
        for i, (step, rank) in enumerate(health)
        if rank < max([r for _, r in health[:i]] or [0])
    )
    assert first == turned + 2
    assert done["step"] == first + 16 == len(rows)
    facts = (out / "run.json").read_text()
    assert "phases.gram.start" in facts
    assert "worse by more than 0 % in 1 measurements in a row" in facts
    # A run resumed after the turn but before the phase goes on as the whole one did.
    again = tmp_path / "again"
    shutil.copytree(out, again)
    (again / "checkpoints" / "last.ckpt").unlink()
    shutil.copy(
        again / "checkpoints" / f"step-{turned + 1:08d}.ckpt", again / "checkpoints" / "last.ckpt"
    )
    run(tiles, again, resume=True)
    assert numbers(again) == numbers(out)
    one, two = (load_file(p / "model" / "model.safetensors") for p in (out, again))
    assert equal(one, two)


def test_gram_alone_from_any_model(three, tiles, tmp_path):
    out = tmp_path / "gram"
    settings = ("phases.pretrain.steps=0", "phases.highres=null",
                f"phases.gram.gram.teacher={three / 'model'}")  # fmt: skip
    run(tiles, out, *EVERY_STEP, *settings)
    rows = [row for row in numbers(out) if "loss/total" in row]
    assert {row["phase"] for row in rows} == {"gram"}
    given = load_file(three / "model" / "model.safetensors")
    held = part(state_at(out, 2), "gram_teacher.trunk.")
    assert equal(held, {k: v for k, v in given.items() if k in held})


def test_a_run_from_a_model_takes_it_as_its_gram_teacher(three, tiles, tmp_path):
    out = tmp_path / "gram"
    settings = ("phases.pretrain.steps=0", "phases.gram.steps=2", "phases.highres=null",
                f"init.model={three}")  # fmt: skip
    run(tiles, out, *EVERY_STEP, *settings)
    given = load_file(three / "model" / "model.safetensors")
    assert equal(part(state_at(out, 2), "gram_teacher.trunk."), given)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("phases.gram.gram.teacher=/nowhere",), "/nowhere is neither a run folder"),
        (("model.depth=3", "phases.gram.gram.teacher={three}"), "its blocks is 2, the student's 3"),
        (("model.dim=64", "phases.gram.gram.teacher={three}"), "its width is 128, the student's 64"),
        (("phases.highres.sizes=[{global_size: 400, local_size: 16}]",), "larger than the"),
        (("phases.gram.views.global_size=44",), "44 pixels do not divide into patches of 8"),
        (("phases.pretrain.objective.ibot=0", "phases.gram.gram.patches=masked"), "nothing is masked"),
        (("phases.highres.sizes=[{global_size: 48, local_size: 16, batch: 6}]",), "6 samples cannot"),
        (("phases.pretrain.steps=0", "phases.gram=null", "phases.highres=null"), "no phase has a step"),
        (("phases.gram.gram.weigth=1",), "phases.gram.gram.weigth: unknown key"),
    ],
)  # fmt: skip
def test_bad_settings_are_one_clear_sentence(three, tiles, settings, words):
    filled = [setting.replace("{three}", str(three)) for setting in settings]
    with pytest.raises(Exception, match=words) as raised:
        prepare(str(tiles), "debug-three-phases", filled)
    assert type(raised.value).__module__ == "geodino.errors"


def test_a_size_for_a_gram_teacher_that_is_not_there_is_refused():
    config = load_recipe("debug-three-phases", ["phases.highres.gram=null"])
    message = r"phases\.highres\.sizes\.gram_size: 64 pixels .* phases\.highres\.gram is not there"
    with pytest.raises(RecipeError, match=message):
        check_sizes(config)
    check_sizes(load_recipe("debug-three-phases"))


def test_what_a_later_phase_leaves_out_is_as_in_the_one_before():
    config = load_recipe("debug-three-phases", ["phases.pretrain.views.local_count=3"])
    gram, highres = config.phases.gram, config.phases.highres
    assert (gram.views.local_count, highres.views.local_count) == (3, 3)
    assert gram.views.turns
    assert highres.momentum.peak == 0.999
    assert highres.gram.weight.peak == 1.5
    assert highres.gram.weight.end is None  # a schedule is taken as a whole
    assert highres.gram.teacher == "best"
    with pytest.raises(RecipeError, match=r"phases\.gram\.lr: Field required"):
        load_recipe("debug", ["phases.gram.steps=3"])
