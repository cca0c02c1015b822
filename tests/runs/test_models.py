"""Every form of MODEL, where commands take one."""

import json

import pytest
import torch
from tests_support import textured, write_tile

import geodino
from geodino.errors import CheckpointError, RecipeError, RunError
from geodino.models.build import build_backbone
from geodino.models.card import ModelCard, Parent
from geodino.models.folder import load_model
from geodino.models.foreign.releases import release_contract
from geodino.models.foreign.to_transformers import save_transformers
from geodino.models.sizes import ModelConfig
from geodino.runs.embed import EmbedJob, Meeting, embed
from geodino.runs.export import export_model, load
from geodino.runs.models import open_model, tensors_hash


@pytest.fixture(scope="module")
def backbone():
    config = ModelConfig(name="vit_small_patch16_dinov3", dim=64, depth=2, heads=2)
    contract = release_contract("lvd1689m")
    generator = torch.Generator().manual_seed(0)
    return build_backbone(config, contract, generator=generator).eval()


@pytest.fixture(scope="module")
def hub_folder(backbone, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "theirs"
    card = ModelCard(lineage=(Parent(name="facebook/dinov3-vits16"),))
    save_transformers(folder, backbone=backbone, contract=release_contract("lvd1689m"), card=card)
    return folder


def test_a_folder_of_transformers_is_loaded_with_its_hash(hub_folder, backbone):
    model = geodino.load(hub_folder)
    assert model.license == "dinov3-license"
    assert model.source.folder is None
    assert model.source.sha256 == tensors_hash(backbone.state_dict())
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        expected = backbone.tokens(pixels).cls
        torch.testing.assert_close(model.backbone.tokens(pixels).cls, expected)


def test_the_hash_is_of_names_shapes_types_and_bytes():
    first = {"a": torch.ones(2), "b": torch.zeros(1)}
    same = {"b": torch.zeros(1), "a": torch.ones(2)}
    assert tensors_hash(first) == tensors_hash(same)
    for other in (
        {"a": torch.ones(2), "c": torch.zeros(1)},
        {"a": torch.ones(1, 2), "b": torch.zeros(1)},
        {"a": torch.ones(2).bfloat16(), "b": torch.zeros(1)},
        {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(1)},
    ):
        assert tensors_hash(other) != tensors_hash(first)


def test_features_are_written_with_a_model_that_is_no_folder_of_ours(hub_folder, tmp_path):
    raster = write_tile(tmp_path / "scene.tif", textured(0, side=64))
    out = tmp_path / "features.tif"
    embed(
        EmbedJob(
            rasters=(str(raster),), model=str(hub_folder), out=out, device="cpu", quiet=True,
            how=Meeting(chip=32, bands=(1, 2, 3)),
        )
    )  # fmt: skip
    item = json.loads((tmp_path / "features.json").read_text())
    assert item["properties"]["emb:dimensions"] == 64
    link = next(link for link in item["links"] if link["rel"] == "emb:model")
    assert (tmp_path / link["href"]).resolve() == hub_folder.resolve()


def test_a_foreign_model_is_converted_to_a_folder_of_ours(hub_folder, backbone, tmp_path):
    facts = export_model(hub_folder, out=tmp_path / "ours")
    assert facts == {"model": str(tmp_path / "ours")}
    loaded = load_model(tmp_path / "ours")
    assert loaded.license == "dinov3-license"
    assert [p.name for p in loaded.lineage] == ["facebook/dinov3-vits16"]
    for key, value in backbone.state_dict().items():
        assert torch.equal(loaded.backbone.state_dict()[key], value)


def test_a_run_is_exported_for_transformers_beside_its_model(debug_run, tmp_path):
    out = tmp_path / "hub"
    facts = export_model(debug_run, to="hub", out=out)
    assert facts["model"] == str(out)
    expected, found = load(debug_run), load(out)
    assert found.contract == expected.contract
    assert (found.license, found.lineage) == ("apache-2.0", ())
    pixels = torch.randint(0, 256, (1, 3, 32, 32), dtype=torch.uint8)
    with torch.no_grad():
        torch.testing.assert_close(
            found.backbone.tokens(pixels).patches, expected.backbone.tokens(pixels).patches
        )


def test_what_cannot_be_exported_is_said(hub_folder, tmp_path):
    with pytest.raises(RecipeError, match="Did you mean 'onnx'"):
        export_model(hub_folder, to="onx", out=tmp_path / "m")
    with pytest.raises(RunError, match="say with --out"):
        export_model(hub_folder)
    with pytest.raises(CheckpointError, match="does not exist"):
        open_model(tmp_path / "nowhere")
