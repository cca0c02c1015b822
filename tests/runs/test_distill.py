"""``geodino distill``: several students in one run, exported, resumed, shared by processes, refused."""

import shutil
from pathlib import Path

import pytest
import timm
import torch
from process_support import run_geodino
from safetensors.torch import load_file
from tests_support import textured, write_tile

from geodino.errors import GeodinoError, RunError
from geodino.files import read_lines
from geodino.models.card import DINOV3_LICENSE, Parent
from geodino.models.folder import load_model, save_model
from geodino.runs.distill import DistillJob, distill
from geodino.runs.export import export_run
from geodino.runs.models import open_model
from geodino.runs.pretrain import PretrainJob, pretrain

UNREPEATABLE = {"time", "images_per_s", "data_wait", "memory_gib"}
SMALL = ("phases.distill.steps=3", "phases.cooldown.steps=1", "checkpoint.every=1",
         "checkpoint.keep=9", "health.every=2", "students.convnext_atto.patch_size=16")  # fmt: skip
TINY = ("vit_nano",)


def run(tiles, teacher, out, *overrides, students=None, resume=False, recipe="debug-distill"):
    return distill(
        DistillJob(
            tiles=str(tiles),
            teacher=None if teacher is None else str(teacher),
            students=students,
            out=out,
            recipe=None if resume else recipe,
            overrides=overrides,
            device="cpu",
            resume=resume,
            quiet=True,
        )
    )


def numbers(out):
    rows = read_lines(out / "metrics.jsonl")
    return sorted(
        ({k: v for k, v in row.items() if k not in UNREPEATABLE} for row in rows),
        key=lambda row: (row["step"], "loss/total" not in row),
    )


@pytest.fixture(scope="module")
def teacher(tiles, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("teacher") / "large"
    few = ("phases.pretrain.steps=2", "health.every=2")
    pretrain(PretrainJob(tiles=str(tiles), out=out, recipe="debug", overrides=few, device="cpu",
                         quiet=True))  # fmt: skip
    return out


@pytest.fixture(scope="module")
def headless(teacher, tmp_path_factory) -> Path:
    """The same teacher without heads, and with a DINOv3 model among its parents."""
    loaded = load_model(teacher / "model")
    folder = tmp_path_factory.mktemp("headless") / "plain"
    parent = Parent(name="vit_large_patch16_dinov3.sat493m", relation="initialised from")
    save_model(folder, backbone=loaded.backbone, heads=None, contract=loaded.contract,
               config=loaded.config, head_configs=None,
               card={"name": "plain", "lineage": [parent.model_dump()]})  # fmt: skip
    return folder


@pytest.fixture(scope="module")
def two(tiles, teacher, reports, tmp_path_factory) -> Path:
    """A finished run of both students of the debug recipe, with the state of every step."""
    out = tmp_path_factory.mktemp("distilled") / "two"
    with reports():
        run(tiles, teacher, out, *SMALL)
    return out


def test_each_student_is_exported_as_its_average_and_opens_in_plain_timm(two, teacher):
    state = torch.load(two / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    assert not any(key.startswith("teacher") for key in state)
    image = torch.rand(2, 3, 64, 64) * 255
    for name in ("vit_nano", "convnext_atto"):
        folder = two / "students" / name
        written = load_file(folder / "model.safetensors")
        prefix = f"averages.{name}.backbone.trunk."
        assert all(torch.equal(value, state[prefix + key]) for key, value in written.items())
        loaded = load_model(folder)
        plain = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
        with torch.no_grad():
            ours = loaded.backbone.tokens(image).cls
            assert torch.equal(ours, plain(loaded.backbone.normalise(image)))
        assert loaded.head_configs == load_model(teacher / "model").head_configs
        assert loaded.contract.mean == load_model(teacher / "model").contract.mean
        assert loaded.lineage[-1].relation == "distilled from"
        assert loaded.license == "apache-2.0"
    # The run folder as a MODEL is its first student.
    assert open_model(two).sha256 == open_model(two / "students" / "vit_nano").sha256


def test_metrics_name_the_students_and_the_phases_follow_each_other(two):
    rows = [row for row in numbers(two) if "loss/total" in row]
    assert [row["phase"] for row in rows] == ["distill"] * 3 + ["cooldown"]
    for name in ("vit_nano", "convnext_atto"):
        assert all(row[f"loss/{name}/ibot"] > 0 for row in rows)
    mean = (rows[0]["loss/vit_nano/total"] + rows[0]["loss/convnext_atto/total"]) / 2
    assert rows[0]["loss/total"] == pytest.approx(mean)
    health = [row for row in numbers(two) if "health/convnext_atto/patch_rank" in row]
    assert [row["step"] for row in health] == [0, 2, 4]
    page = (two / "report.html").read_text()
    assert "as their teacher, vit_nano (patches of 8 px), convnext_atto (patches of 16 px)" in page


def test_a_run_resumed_in_its_first_phase_ends_bit_for_bit_as_the_whole_one(two, tiles, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(two, out)
    for later in out.glob("checkpoints/step-*.ckpt"):
        if int(later.stem[5:]) > 2:
            later.unlink()
    (out / "checkpoints" / "last.ckpt").unlink()
    shutil.copy(out / "checkpoints" / "step-00000002.ckpt", out / "checkpoints" / "last.ckpt")
    shutil.rmtree(out / "students")
    run(tiles, None, out, resume=True)
    for name in ("vit_nano", "convnext_atto"):
        for file in ("model.safetensors", "heads.safetensors"):
            mine, whole = (p / "students" / name / file for p in (out, two))
            assert mine.read_bytes() == whole.read_bytes()
    assert numbers(out) == numbers(two)


def test_export_writes_the_students_of_the_last_checkpoint_again(two, tmp_path):
    done = export_run(two, out=tmp_path / "again")
    assert set(done["students"]) == {"vit_nano", "convnext_atto"}
    for name, folder in done["students"].items():
        again, first = (Path(p) / "model.safetensors" for p in (folder, two / "students" / name))
        assert again.read_bytes() == first.read_bytes()
    with pytest.raises(GeodinoError, match=r"--to onnx: a run of distillation exports model"):
        export_run(two, to="onnx")


def test_two_processes_compute_what_one_computes(tiles, teacher, two, tmp_path):
    settings = [part for setting in SMALL for part in ("--set", setting)]
    done = run_geodino(
        "distill", "--tiles", tiles, "--teacher", teacher, "--recipe", "debug-distill", "--out",
        tmp_path / "ranks", "--device", "cpu", "--devices", 2, *settings,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, both = ([row for row in numbers(out) if "loss/total" in row]
                 for out in (two, tmp_path / "ranks"))  # fmt: skip
    assert len(one) == len(both) == 4
    for a, b in zip(one, both, strict=True):
        for key in a:
            if key.startswith(("loss/", "grad_norm/")) and "entropy" not in key:
                assert b[key] == pytest.approx(a[key], rel=2e-3, abs=2e-4), (a["step"], key)
    weights = [load_file(out / "students" / "vit_nano" / "model.safetensors")
               for out in (two, tmp_path / "ranks")]  # fmt: skip
    assert max(float((weights[0][k] - weights[1][k]).abs().max()) for k in weights[0]) < 1e-4


def test_a_teacher_without_heads_gives_its_features_and_its_licence(tiles, headless, tmp_path):
    out = tmp_path / "run"
    run(tiles, headless, out, *SMALL, students=("vit_nano", "timm:resnet10t"))
    rows = [row for row in numbers(out) if "loss/total" in row]
    assert {"loss/resnet10t/cls", "loss/resnet10t/patches", "loss/vit_nano/koleo"} <= set(rows[0])
    assert not any(key.endswith(("ibot", "dino")) for key in rows[0])
    loaded = load_model(out / "students" / "resnet10t")
    assert loaded.heads == {}
    assert loaded.license == DINOV3_LICENSE
    assert "distill.targets" in (out / "run.json").read_text()
    plain = timm.create_model(f"local-dir:{out / 'students' / 'resnet10t'}", pretrained=True)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(plain.eval()(image), loaded.backbone([image])[0].cls)


def test_resume_refuses_another_teacher_other_students_and_another_command(
    two, tiles, teacher, headless, tmp_path
):
    out = tmp_path / "run"
    shutil.copytree(two, out)
    with pytest.raises(RunError, match=r"started with --teacher .* whose weights are not"):
        run(tiles, headless, out, resume=True)
    with pytest.raises(RunError, match="was started with --students vit_nano,convnext_atto"):
        run(tiles, teacher, out, resume=True, students=TINY)
    with pytest.raises(GeodinoError, match="is a run of `geodino distill`"):
        pretrain(PretrainJob(tiles=str(tiles), out=out, resume=True, quiet=True))
    with pytest.raises(RunError, match="holds a run: nothing was changed"):
        run(tiles, teacher, out)


@pytest.mark.parametrize(
    ("students", "settings", "words"),
    [
        ((), (), "--students has an empty name|names nobody|empty"),
        (("",), (), "--students has an empty name"),
        (("vit_nano", "timm:vit_nano"), (), "names vit_nano more than once"),
        (("vit_nanoo",), (), "Did you mean 'vit_nano'"),
        (("resnet18x",), (), "Did you mean 'resnet18'"),
        (("mobilenetv3_small_050",), (), "widens its map"),
        (("levit_128s",), ("phases.distill.views.global_size=48",), "cannot be laid on|takes no crops"),
        (TINY, ("phases.distill.views.global_size=44",), "44 pixels do not divide into patches of 8"),
        (TINY, ("heads.dino.prototypes=99",), "asks for 99, the teacher .* has 256"),
        (TINY, ("distill.targets=feature",), "distill.targets: Input should be"),
        (TINY, ("phases.distill.gram={}",), "its teacher does not move"),
        (TINY, ("train.batch=auto",), "no automatic batch"),
        (TINY, ("train.batch=6", "train.group=3"), None),
        (TINY, ("model.depth=3",), "the recipe was recorded with another teacher"),
        (("convnext_atto",), ("phases.distill.views.enlarge=false",), "128 px are larger than the 96"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_sentence(tiles, teacher, tmp_path, students, settings, words):
    job = DistillJob(tiles=str(tiles), teacher=str(teacher), students=students, device="cpu",
                     out=tmp_path / "run", recipe="debug-distill", overrides=settings,
                     dry_run=True, quiet=True)  # fmt: skip
    if words is None:
        assert distill(job)["parameters"] > 0
        return
    with pytest.raises(GeodinoError, match=words):
        distill(job)
    assert not (tmp_path / "run").exists()


def test_heads_that_a_teacher_does_not_have_cannot_be_asked_for(tiles, headless, tmp_path):
    with pytest.raises(GeodinoError, match="plain has no DINO head"):
        run(tiles, headless, tmp_path / "run", "distill.targets=heads")
    with pytest.raises(GeodinoError, match="/nowhere"):
        run(tiles, "/nowhere", tmp_path / "run")
    with pytest.raises(GeodinoError, match="--teacher is missing"):
        run(tiles, None, tmp_path / "run")


def test_tiles_of_other_bands_or_another_type_are_refused_and_more_bands_are_narrowed(
    teacher, tmp_path
):
    one = write_tile(tmp_path / "one" / "a.tif", textured(0, bands=1))
    with pytest.raises(GeodinoError, match="was trained on red, green, blue"):
        run(one.parent, teacher, tmp_path / "run", students=TINY)
    wide = write_tile(tmp_path / "wide" / "a.tif", textured(0, dtype="uint16"))
    with pytest.raises(GeodinoError, match="stores uint16, the teacher large was trained on uint8"):
        run(wide.parent, teacher, tmp_path / "run", "data.band_names=[red, green, blue]",
            students=TINY)  # fmt: skip
    four = write_tile(tmp_path / "four" / "a.tif", textured(0, bands=4))
    facts = distill(
        DistillJob(tiles=str(four.parent), teacher=str(teacher), students=TINY, device="cpu",
                   out=tmp_path / "run", recipe="debug-distill", dry_run=True, quiet=True,
                   overrides=("data.band_names=[nir, red, green, blue]",))
    )  # fmt: skip
    assert facts["bands"] == "red, green, blue"
    assert any("those the teacher reads" in note for note in facts["notes"])
