"""What a finished run leaves behind."""

import json

import pytest
import torch
from safetensors.torch import load_file

from geodino import api
from geodino.errors import RunError
from geodino.files import read_lines
from geodino.runs.checkpoints import read_checkpoint
from geodino.runs.export import export_run, load
from geodino.runs.pretrain import PretrainJob, pretrain
from geodino.runs.recipe import load_recorded


def test_everything_that_was_promised_is_in_the_run_folder(debug_run):
    names = {p.name for p in debug_run.iterdir()}
    assert {
        "recipe.yaml", "run.json", "tiles.parquet", "contract.json", "metrics.jsonl", "log.txt",
        "checkpoints", "model",
    } <= names  # fmt: skip
    assert {p.name for p in (debug_run / "model").iterdir()} == {
        "model.safetensors", "config.json", "heads.safetensors", "contract.json", "item.json",
        "README.md",
    }  # fmt: skip
    checkpoints = {p.name for p in (debug_run / "checkpoints").iterdir()}
    assert checkpoints == {"last.ckpt", "step-00000015.ckpt", "step-00000020.ckpt"}


def test_run_json_says_what_a_paper_needs(debug_run, tiles):
    facts = json.loads((debug_run / "run.json").read_text())
    assert facts["source"] == str(tiles)
    assert facts["data"]["tiles"] == 6
    assert len(facts["data"]["fingerprint"]) == 64
    assert facts["versions"]["torch"] == torch.__version__
    assert facts["derived"]["data.chip"]["value"] == 64
    assert facts["results"]["step"] == 20
    assert "command" in facts


def test_every_row_of_the_metrics_has_step_phase_time_and_finite_scalars(debug_run):
    rows = read_lines(debug_run / "metrics.jsonl")
    steps = [row for row in rows if "loss/total" in row]
    health = [row for row in rows if "health/cls_rank" in row]
    assert [row["step"] for row in steps] == list(range(20))
    assert [row["step"] for row in health] == [0, 10, 20]
    for row in rows:
        assert row["phase"] == "pretrain"
        assert row["time"] > 0
        assert all(v is not None for v in row.values()), row
    named = {"loss/total", "loss/dino", "loss/ibot", "loss/koleo", "lr", "images_per_s"}
    assert named <= set(steps[0])


def test_the_recorded_recipe_is_complete_and_resolved(debug_run):
    config = load_recorded(debug_run / "recipe.yaml")
    assert config.data.chip == 64
    assert config.train.batch == 8


def test_the_model_is_the_teacher_of_the_last_checkpoint(debug_run):
    state = read_checkpoint(debug_run / "checkpoints" / "last.ckpt")["state_dict"]
    exported = load_file(debug_run / "model" / "model.safetensors")
    prefix = "teacher.backbone.trunk."
    teacher = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    assert teacher.keys() == exported.keys()
    for name, value in exported.items():
        torch.testing.assert_close(value, teacher[name], rtol=0, atol=0)


def test_a_run_and_its_model_folder_load_as_the_same_model(debug_run):
    image = torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8)
    a, b = load(debug_run), api.load(debug_run / "model")
    with torch.no_grad():
        one, two = a.backbone.tokens(image), b.backbone.tokens(image)
    torch.testing.assert_close(one.cls, two.cls, rtol=0, atol=0)
    assert one.patches.shape == (2, 64, 128)
    assert set(a.heads) == {"dino", "ibot"}


def test_exporting_again_gives_the_same_weights(debug_run, tmp_path):
    result = export_run(debug_run, out=tmp_path / "again")
    assert result["step"] == 20
    one = (debug_run / "model" / "model.safetensors").read_bytes()
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == one


def test_a_used_folder_is_refused_and_nothing_in_it_changes(debug_run, tiles):
    before = {p: p.stat().st_mtime_ns for p in debug_run.rglob("*")}
    with pytest.raises(RunError, match=r"holds a run: nothing was changed.*--resume"):
        pretrain(PretrainJob(tiles=str(tiles), out=debug_run, recipe="debug", quiet=True))
    assert {p: p.stat().st_mtime_ns for p in debug_run.rglob("*")} == before


def test_a_dry_run_writes_nothing_and_tells_the_plan(tiles, tmp_path):
    job = PretrainJob(
        tiles=str(tiles), out=tmp_path / "run", recipe="debug", dry_run=True, quiet=True
    )
    card = pretrain(job)
    assert not (tmp_path / "run").exists()
    assert card["parameters"] > 100_000
    assert card["flops_per_image"] > 1e6
    assert card["recipe"]["data"]["chip"] == 64


def test_without_a_recipe_one_is_chosen_and_the_reason_is_shown(tiles, tmp_path):
    job = PretrainJob(
        tiles=str(tiles), out=tmp_path / "run", dry_run=True, quiet=True, device="cpu"
    )
    assert any(note.startswith("recipe = laptop") for note in pretrain(job)["notes"])


def test_event_files_are_written_on_request(tiles, tmp_path):
    overrides = ("log.tensorboard=true", "phases.pretrain.steps=2")
    pretrain(
        PretrainJob(
            tiles=str(tiles), out=tmp_path / "run", recipe="debug", overrides=overrides,
            device="cpu", quiet=True,
        )
    )  # fmt: skip
    assert list((tmp_path / "run" / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("drop_path", [0.0, 0.5])
def test_a_run_without_local_crops_learns_from_the_two_global_ones(tiles, tmp_path, drop_path):
    overrides = (
        "phases.pretrain.views.local_count=0",
        "phases.pretrain.steps=3",
        "phases.pretrain.objective.ibot=0",
        f"model.drop_path={drop_path}",
    )
    out = tmp_path / "run"
    pretrain(
        PretrainJob(
            tiles=str(tiles), out=out, recipe="debug", overrides=overrides, device="cpu", quiet=True
        )
    )
    rows = [row for row in read_lines(out / "metrics.jsonl") if "loss/dino" in row]
    assert len(rows) == 3
    assert all(0 < row["loss/dino"] < 20 for row in rows)


@pytest.mark.slow
def test_a_run_with_compiled_blocks_gives_the_losses_of_one_without(debug_run, tiles, tmp_path):
    overrides = ("train.compile=on", "phases.pretrain.steps=3")
    out = tmp_path / "run"
    pretrain(
        PretrainJob(
            tiles=str(tiles), out=out, recipe="debug", overrides=overrides, device="cpu", quiet=True
        )
    )
    compiled, plain = (
        [row["loss/total"] for row in read_lines(run / "metrics.jsonl") if "loss/total" in row][:3]
        for run in (out, debug_run)
    )
    assert compiled == pytest.approx(plain, rel=1e-4)
