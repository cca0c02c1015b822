import json
import shutil

import pytest
import rasterio
import torch
from tests_support import textured, write_tile

from geodino.errors import BandError, ContractError, RecipeError, RunError
from geodino.geo.bands import Band
from geodino.models.adapt import adaptation
from geodino.models.build import build_backbone
from geodino.models.folder import load_model
from geodino.models.foreign.releases import release_contract
from geodino.models.sizes import ModelConfig
from geodino.runs.build import build_course, build_module
from geodino.runs.export import export_run, load
from geodino.runs.init import load_start, model_name
from geodino.runs.prepare import prepare
from geodino.runs.pretrain import PretrainJob, pretrain
from geodino.runs.recipe import load_recorded
from geodino.runs.record import RunFolder

FEW = ("phases.pretrain.steps=2", "checkpoint.every=1", "data.threads=1")


def start(tiles, out, **options):
    overrides = (*FEW, *options.pop("overrides", ()))
    job = PretrainJob(
        tiles=str(tiles), out=out, recipe="debug", device="cpu", quiet=True, overrides=overrides,
        **options,
    )  # fmt: skip
    return pretrain(job)


def bands(*names):
    known = {"red", "green", "blue", "nir", "swir16"}
    return [Band(name=n, common_name=n if n in known else None) for n in names]


RGB = bands("red", "green", "blue")
FILTERS = torch.tensor([3.0, 5.0, 10.0]).view(1, 3, 1, 1)  # their mean is 6


@pytest.mark.parametrize(
    ("rule", "names", "expected"),
    [
        ("match", ("red", "green", "blue"), (3, 5, 10)),
        ("match", ("blue", "green", "red"), (10, 5, 3)),
        # 3/5 of: blue, green, red, and twice the mean.
        ("match", ("blue", "green", "red", "nir", "swir16"), (6, 3, 1.8, 3.6, 3.6)),
        ("match", ("red",), (9,)),
        ("mean", ("red", "green", "blue"), (3, 5, 10)),
        ("mean", ("nir", "red"), (9, 9)),
        ("order", ("band_1", "band_2", "band_3"), (3, 5, 10)),
    ],
)
def test_the_first_layer_follows_the_rule(rule, names, expected):
    found = adaptation(RGB, bands(*names), rule=rule).apply(FILTERS)
    torch.testing.assert_close(found.flatten(), torch.tensor(expected, dtype=torch.float32))


@pytest.mark.parametrize("rule", ["match", "mean"])
@pytest.mark.parametrize("count", [3, 4, 7, 12])
def test_bands_that_all_show_the_same_picture_get_the_answer_of_before(rule, count):
    names = ("red", "green", "blue", *(f"extra_{i}" for i in range(9)))[:count]
    found = adaptation(RGB, bands(*names), rule=rule).apply(FILTERS)
    torch.testing.assert_close(found.sum(), FILTERS.sum())


def test_bands_that_share_no_name_are_not_guessed():
    with pytest.raises(BandError, match=r"init.bands=order.*init.bands=mean"):
        adaptation(RGB, bands("band_1", "band_2", "band_3"), rule="match")
    with pytest.raises(BandError, match=r"as many bands as the model has \(3\).*have 2"):
        adaptation(RGB, bands("band_1", "band_2"), rule="order")


@pytest.fixture(scope="module")
def continued(tiles, debug_run, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "continued"
    start(tiles, out, init=str(debug_run))
    return out


def test_a_run_begins_with_the_features_of_its_parent(continued, debug_run):
    parent, begun = load(debug_run), load_model(continued / "init")
    image = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    with torch.no_grad():
        expected, found = parent.backbone.tokens(image), begun.backbone.tokens(image)
    assert torch.equal(found.cls, expected.cls)
    assert torch.equal(found.patches, expected.patches)
    assert begun.contract.mean == parent.contract.mean
    for name, head in parent.heads.items():
        for key, value in head.state_dict().items():
            assert torch.equal(begun.heads[name].state_dict()[key], value)


def test_student_and_teacher_both_begin_with_the_parent(tiles, continued):
    folder = RunFolder(continued)
    config = load_recorded(folder.recipe)
    begun = load_model(folder.init)
    module = build_module(config, begun.contract, build_course(config))
    load_start(config, module.student, folder)
    module.begin()
    for network in (module.student, module.teacher):
        for key, value in begun.backbone.state_dict().items():
            assert torch.equal(network.backbone.state_dict()[key], value)
        assert torch.equal(network.dino_head.last_layer.weight, begun.heads["dino"].last_layer.weight)  # fmt: skip


def test_the_parent_is_recorded_with_its_hash_and_named_in_every_export(continued, debug_run):
    facts = json.loads((continued / "run.json").read_text())
    config = load_recorded(continued / "recipe.yaml")
    assert config.init is not None
    assert config.init.model == str(debug_run)
    assert config.init.sha256 == facts["init_sha256"]
    assert len(facts["init_sha256"]) == 64
    assert [p["name"] for p in facts["parents"]] == ["debug"]
    for folder in (continued / "model", continued / "init"):
        assert [p.name for p in load_model(folder).lineage] == ["debug"]
    export_run(continued, to="hub")
    assert "initialised from debug" in (continued / "hub" / "README.md").read_text()


def test_a_run_goes_on_without_its_parent_bit_for_bit(
    tiles, debug_run, continued, tmp_path, monkeypatch
):
    stopped = tmp_path / "stopped"
    shutil.copytree(continued, stopped)
    # As if it had died after its first step; and everything it began with is gone.
    (first,) = stopped.glob("checkpoints/step-*1.ckpt")
    shutil.copy(first, stopped / "checkpoints" / "last.ckpt")
    shutil.rmtree(stopped / "init")
    shutil.rmtree(stopped / "model")

    def gone(model):
        raise AssertionError(f"{model} was opened again")

    monkeypatch.setattr("geodino.runs.init.open_model", gone)
    start(tiles, stopped, init=str(debug_run), resume=True)
    a, b = load_model(continued / "model"), load_model(stopped / "model")
    for key, value in a.backbone.state_dict().items():
        assert torch.equal(b.backbone.state_dict()[key], value), key
    assert [p.name for p in b.lineage] == ["debug"]
    with pytest.raises(RunError, match="init"):
        start(tiles, stopped, resume=True)


def five_bands(folder):
    for number in range(4):
        path = write_tile(folder / f"t{number}.tif", textured(number, bands=5))
        with rasterio.open(path, "r+") as target:
            for i, name in enumerate(("blue", "green", "red", "nir", "swir16")):
                target.set_band_description(i + 1, name)
    return folder


def released(tmp_path):
    """A file in the release's layout with few blocks."""
    config = ModelConfig(name="vit_small_patch16_dinov3", dim=64, depth=2, heads=2)
    backbone = build_backbone(
        config, release_contract("lvd1689m"), generator=torch.Generator().manual_seed(3)
    )
    state = {}
    for key, value in backbone.state_dict().items():
        name = key.removeprefix("trunk.").replace("reg_token", "storage_tokens")
        state[name.replace("gamma_1", "ls1.gamma").replace("gamma_2", "ls2.gamma")] = value
    state["rope_embed.periods"] = 100.0 ** (torch.arange(8) / 8)
    torch.save(state, tmp_path / "dinov3_small.pth")
    return backbone, tmp_path / "dinov3_small.pth"


def test_web_weights_are_widened_to_five_bands_and_said_to_be_adapted(tmp_path):
    parent, path = released(tmp_path)
    out = tmp_path / "run"
    start(five_bands(tmp_path / "tiles"), out, init=str(path))
    begun = load_model(out / "init")
    assert (begun.config.width, begun.config.blocks, begun.config.heads) == (64, 2, 2)
    old = parent.trunk.patch_embed.proj.weight
    new = begun.backbone.trunk.patch_embed.proj.weight
    torch.testing.assert_close(new[:, 2], old[:, 0] * 3 / 5)
    torch.testing.assert_close(new[:, 4], old.mean(1) * 3 / 5)
    assert begun.license == "dinov3-license"
    model = load_model(out / "model")
    assert model.license == "dinov3-license"
    assert [p.name for p in model.lineage] == ["dinov3_small.pth"]
    page = (out / "model" / "README.md").read_text()
    assert "**Adapted:**" in page
    assert "- adapted" in page
    assert "nir, swir16 get the mean of 3; all times 3/5" in page
    # Other bands: the statistics are those of the tiles.
    assert begun.contract.mean != (123.675, 116.28, 103.53)
    facts = json.loads((out / "run.json").read_text())
    assert facts["derived"]["init.statistics"]["value"] == "measured"
    assert facts["derived"]["heads"]["value"] == "fresh"


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("model.depth=5", r"model.depth: 5 was set, but the weights of .* have 2"),
        ("model.name=vit_nano", r"model.name: 'vit_nano' was set"),
        ("model.layer_scale=0", "have 'LayerScale'"),
        ("model.rope.base=50", "model.rope.base: 50"),
        ("init.statistics=parent", None),
    ],
)
def test_what_the_weights_decide_cannot_be_set_otherwise(asked, message, tmp_path):
    _, path = released(tmp_path)
    tiles = five_bands(tmp_path / "tiles")
    kind = RecipeError if message else ContractError
    with pytest.raises(kind, match=message or "needs the bands and the type"):
        start(tiles, tmp_path / "run", init=str(path), overrides=(asked,))
    assert not (tmp_path / "run").exists()


def prepared(tiles, init, *overrides):
    return prepare(str(tiles), "debug", (f"init.model={init}", *overrides))


def test_what_agrees_with_the_weights_may_be_said(tiles, debug_run):
    model = load(debug_run).config
    said = (f"model.name={model.name}", f"model.patch_size={model.stride}", "model.depth=2")
    config = prepared(tiles, debug_run, *said, "model.drop_path=0.25").config
    assert config.model == model.model_copy(update={"drop_path": 0.25})


def test_heads_that_were_set_are_fresh_unless_they_are_the_parents(tiles, debug_run):
    found = prepared(tiles, debug_run, "heads.dino.prototypes=48")
    assert found.start.heads == ("ibot",)
    assert found.config.heads.dino.prototypes == 48
    assert prepared(tiles, debug_run).start.heads == ("dino", "ibot")


def test_a_recipe_records_where_a_file_lies_but_not_where_a_name_does(tmp_path, monkeypatch):
    (tmp_path / "w.pth").touch()
    monkeypatch.chdir(tmp_path)
    assert model_name("w.pth") == str(tmp_path / "w.pth")
    assert model_name("w.pth@sat493m") == f"{tmp_path / 'w.pth'}@sat493m"
    assert model_name("hub:facebook/dinov3") == "hub:facebook/dinov3"
    assert model_name("timm:x.sat493m") == "timm:x.sat493m"


def test_measured_statistics_may_be_asked_for(tiles, debug_run):
    parents = prepared(tiles, debug_run).derived["init.statistics"]
    assert parents["value"] == "parent"
    measured = prepared(tiles, debug_run, "init.statistics=measured").derived["init.statistics"]
    assert measured == {"value": "measured", "reason": "asked for"}
