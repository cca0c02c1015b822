"""Runs on photographs and on mixes, from the command's job to the model."""

import json
import shutil

import pytest
from images_support import write_pictures, write_tar
from tests_support import textured, write_tile

from geodino.data.config import DataConfig
from geodino.data.inspection.survey import survey
from geodino.errors import SourceError
from geodino.files import read_lines
from geodino.runs.pretrain import PretrainJob, pretrain
from geodino.runs.recipe import load_recipe

IMAGES = ("data.kind=images", "data.statistics.source=imagenet", "phases.pretrain.steps=6",
          "health.every=6")  # fmt: skip


def run(src, out, *overrides, recipe="debug", **options):
    job = PretrainJob(
        tiles=str(src), out=out, recipe=recipe, overrides=overrides, device="cpu", quiet=True,
        **options,
    )  # fmt: skip
    return pretrain(job)


def losses(out):
    return [
        {name: value for name, value in row.items() if name.startswith("loss/")}
        for row in read_lines(out / "metrics.jsonl")
        if "loss/total" in row
    ]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    return write_pictures(tmp_path_factory.mktemp("photos"), 12)


@pytest.fixture(scope="module")
def photo_run(photos, reports, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "photos"
    with reports():
        run(photos, out, *IMAGES)
    return out


def test_photographs_and_their_shards_give_the_same_losses(photos, photo_run, tmp_path):
    members = [(path.name, path.read_bytes()) for path in sorted(photos.iterdir())]
    for n in range(3):
        write_tar(tmp_path / f"{n}.tar", dict(members[4 * n : 4 * n + 4]))
    run(tmp_path / "{0..2}.tar", tmp_path / "run", *IMAGES)
    assert len(losses(photo_run)) == 6
    assert losses(tmp_path / "run") == losses(photo_run)


def test_the_record_of_a_run_on_photographs_says_what_was_done_to_them(photo_run):
    decisions = " ".join(json.loads((photo_run / "run.json").read_text())["data"]["decisions"])
    assert "photographs" in decisions
    assert "ImageNet's" in decisions
    assert (photo_run / "report.html").is_file()
    contract = json.loads((photo_run / "contract.json").read_text())
    assert contract["mean"] == pytest.approx([123.675, 116.28, 103.53])


def test_a_run_on_a_mix_says_its_shares_and_resumes_to_the_same_losses(photos, tmp_path):
    for n in range(3):
        write_tile(tmp_path / "fields" / f"t{n}.tif", textured(n))
    (tmp_path / "mix.yaml").write_text(
        "homogeneous: 0.3\nsources:\n"
        f"  photos: {{tiles: {photos}, weight: 0.8, homogeneous: true, data: {{kind: images}}}}\n"
        "  fields: {tiles: fields, weight: 0.2}\n"
    )
    settings = ("phases.pretrain.steps=10", "health.every=10", "checkpoint.every=3")
    card = run(tmp_path / "mix.yaml", tmp_path / "none", *settings, dry_run=True)
    assert any(note.startswith("photos: 86.0% of the samples, 30.0%") for note in card["notes"])
    run(tmp_path / "mix.yaml", tmp_path / "whole", *settings)
    cut = shutil.copytree(tmp_path / "whole", tmp_path / "cut")
    older, newest = sorted((cut / "checkpoints").glob("step-*"))
    newest.unlink()
    (cut / "checkpoints" / "last.ckpt").unlink()
    shutil.copy(older, cut / "checkpoints" / "last.ckpt")
    (tmp_path / "mix.yaml").write_text("of no account any more")
    run(tmp_path / "mix.yaml", cut, recipe=None, resume=True)
    assert losses(cut) == losses(tmp_path / "whole")


def test_the_web_recipes_flip_left_to_right_as_the_paper_says_and_never_turn():
    for name, flip in (("web-vits16", 0.5), ("web-vitl16", 0.5), ("web-vit7b16", 0.0)):
        config = load_recipe(name)
        views = config.phases.pretrain.views
        assert (views.flip_horizontal, views.flip_vertical, views.turns) == (flip, 0.0, False)
        assert config.data.kind == "images"
        assert config.data.statistics.source == "imagenet"
        assert "full length" in config.description


def test_the_last_learning_rate_of_the_imagenet_recipe_is_one_millionth():
    phase = load_recipe("web-vitl16").phases.pretrain
    factor = 4 * (2048 / 1024) ** 0.5
    assert phase.lr.scaled(factor).value(125_000, 125_000) == pytest.approx(1e-6, rel=1e-2)
    assert phase.lr.scaled(factor).value(12_500, 125_000) == pytest.approx(4e-3 * 2**0.5)


def test_what_looks_at_maps_refuses_photographs_in_words(photos, tmp_path):
    with pytest.raises(SourceError, match="cannot be asked of photographs"):
        run(photos, tmp_path / "r", *IMAGES, "data.dates=2")
    for src, config in ((str(photos), DataConfig(kind="images")), ("mix.yaml", DataConfig())):
        with pytest.raises(SourceError, match="pretrain --dry-run"):
            survey(src, config, threads=1)
