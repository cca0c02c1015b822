import json
from pathlib import Path
from types import SimpleNamespace

import jaxtyping
import numpy as np
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from transformers import AutoImageProcessor, AutoModel

from geodino.errors import RecipeError, RunError
from geodino.models.card import ModelCard, Parent
from geodino.models.foreign import open_foreign, to_onnx
from geodino.models.foreign.to_onnx import save_onnx
from geodino.models.foreign.to_transformers import save_transformers

SMALL = {"dim": 64, "depth": 2, "heads": 4}
CASES = {
    "mlp": (3, {"name": "vit_small_patch16_dinov3", **SMALL}),
    "mlp with biases, five bands": (5, {"name": "vit_small_patch16_dinov3_qkvb", **SMALL}),
    "swiglu, 32-pixel patch": (
        3,
        {"name": "vit_small_plus_patch16_dinov3_qkvb", "patch_size": 32, **SMALL},
    ),
    "no LayerScale, another base": (
        3,
        {"name": "vit_small_patch16_dinov3", "layer_scale": 0.0, "rope": {"base": 50.0}, **SMALL},
    ),
    "a norm for training alone": (
        3,
        {"name": "vit_small_patch16_dinov3", "local_cls_norm": True, **SMALL},
    ),
    "convnext, five bands": (5, {"name": "convnext_atto"}),
    "convnext without LayerScale": (3, {"name": "convnext_atto", "layer_scale": 0.0}),
}
CARD = ModelCard(
    name="test", lineage=(Parent(name="facebook/dinov3-vits16", relation="distilled from"),)
)


@pytest.mark.parametrize("case", CASES)
def test_transformers_opens_the_export_and_computes_the_same(
    case, tmp_path, backbone_for, contract_for, noise
):
    bands, settings = CASES[case]
    contract = contract_for(bands)
    backbone = backbone_for(contract=contract, **settings)
    save_transformers(tmp_path, backbone=backbone, contract=contract, card=CARD)
    theirs, report = AutoModel.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    image = 127 + 50 * noise(2, bands, 64, 96)
    with torch.no_grad():
        tokens = backbone.tokens(image)
        found = theirs.eval()(backbone.normalise(image)).last_hidden_state
    ours = torch.cat((tokens.cls[:, None], tokens.registers, tokens.patches), dim=1)
    torch.testing.assert_close(found, ours, atol=1e-5, rtol=0)
    again = open_foreign(str(tmp_path))
    with torch.no_grad():
        back = again.backbone.tokens(image)
    torch.testing.assert_close(back.patches, tokens.patches, atol=1e-5, rtol=0)
    assert again.contract == contract
    assert (again.license, again.lineage) == ("dinov3-license", CARD.lineage)


def test_a_model_of_transformers_goes_through_here_and_back(
    tmp_path, vit, save_hub, contract_for, noise
):
    theirs = vit(gated=True, bands=5)
    loaded = open_foreign(str(save_hub(theirs, tmp_path / "in", mean=[0.5] * 5)))
    save_transformers(
        tmp_path / "out", backbone=loaded.backbone, contract=loaded.contract, card=CARD
    )
    back = AutoModel.from_pretrained(tmp_path / "out").eval()
    assert theirs.state_dict().keys() == back.state_dict().keys()
    for key, value in theirs.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key


def test_their_preprocessing_normalises_as_we_do(tmp_path, backbone_for, contract_for):
    backbone = backbone_for(name="vit_nano", depth=1)
    save_transformers(tmp_path, backbone=backbone, contract=contract_for(3), card=CARD)
    image = torch.randint(0, 256, (3, 48, 80), dtype=torch.uint8)
    found = AutoImageProcessor.from_pretrained(tmp_path)(image, return_tensors="pt").pixel_values
    torch.testing.assert_close(found, backbone.normalise(image[None]), atol=1e-5, rtol=0)


def test_what_transformers_cannot_build_is_said(tmp_path, backbone_for, contract_for):
    backbone = backbone_for(name="convnext_atto", patch_size=16)
    with pytest.raises(RecipeError, match=r"patch_size 16 has dilated stages.*--to timm"):
        save_transformers(tmp_path, backbone=backbone, contract=contract_for(3), card=CARD)
    assert not list(tmp_path.iterdir())


def test_the_card_of_the_export_is_for_transformers(tmp_path, backbone_for, contract_for):
    backbone = backbone_for(name="vit_nano", depth=1)
    save_transformers(tmp_path, backbone=backbone, contract=contract_for(3), card=CARD)
    page = (tmp_path / "README.md").read_text()
    assert "library_name: transformers" in page
    assert "AutoModel.from_pretrained" in page
    assert "license_name: dinov3-license" in page
    with safe_open(tmp_path / "model.safetensors", "pt") as stored:
        assert stored.metadata() == {"format": "pt"}


@pytest.fixture
def unchecked_shapes():
    """The shape checker of the tests cannot read the sizes of a graph for any size."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def check_onnx(path, backbone, contract, noise):
    differences = save_onnx(path, backbone=backbone, contract=contract, card=CARD)
    assert len(differences) == 2
    assert max(differences.values()) < 1e-5
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    session = onnxruntime.InferenceSession(path)
    patch = backbone.patch_size
    for images, rows, columns in ((1, 1, 1), (2, 7, 3)):
        image = 127 + 50 * noise(images, backbone.bands, rows * patch, columns * patch)
        cls, grid = session.run(["cls", "map"], {"image": image.numpy()})
        with torch.no_grad():
            tokens = backbone.tokens(image)
        torch.testing.assert_close(torch.from_numpy(cls), tokens.cls, atol=2e-5, rtol=0)
        torch.testing.assert_close(torch.from_numpy(grid), tokens.map, atol=2e-5, rtol=0)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["mean"]) == list(contract.mean)
    assert json.loads(facts["bands"]) == list(contract.band_names)
    assert facts["license"] == "dinov3-license"
    assert json.loads(facts["lineage"])[0]["relation"] == "distilled from"
    assert facts["patch_size"] == str(patch)


@pytest.mark.usefixtures("unchecked_shapes")
def test_a_vit_in_onnx_takes_stored_values_of_any_batch_and_size(
    tmp_path, backbone_for, contract_for, noise
):
    contract = contract_for(5, dtype="uint16")
    settings = {"name": "vit_small_plus_patch16_dinov3_qkvb", **SMALL, "depth": 1}
    check_onnx(tmp_path / "m.onnx", backbone_for(contract=contract, **settings), contract, noise)


@pytest.mark.usefixtures("unchecked_shapes")
@pytest.mark.slow
@pytest.mark.parametrize("patch", [16, 32])
def test_a_convnext_in_onnx_takes_stored_values_of_any_batch_and_size(
    patch, tmp_path, backbone_for, contract_for, noise
):
    contract = contract_for(3)
    backbone = backbone_for(contract=contract, name="convnext_atto", patch_size=patch)
    check_onnx(tmp_path / "m.onnx", backbone, contract, noise)


def test_a_missing_onnx_library_is_one_sentence(tmp_path, backbone_for, contract_for, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(RunError, match=r"onnxscript: `pip install geodino\[onnx\]`"):
        save_onnx(
            tmp_path / "m.onnx", backbone=backbone_for(name="vit_nano", depth=1),
            contract=contract_for(3), card=CARD,
        )  # fmt: skip


class OtherProgram:
    """An exporter's result whose features are all zero."""

    def __init__(self):
        self.model = SimpleNamespace(metadata_props={})

    def save(self, path, *, external_data):
        Path(path).write_bytes(b"some graph")

    def run(self, names, inputs):
        return [np.zeros((1, 1), np.float32), np.zeros((1, 1, 1, 1), np.float32)]


def test_a_file_that_computes_something_else_is_not_kept(
    tmp_path, backbone_for, contract_for, monkeypatch
):
    monkeypatch.setattr(to_onnx, "_program", lambda *_: OtherProgram())
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *_, **__: OtherProgram())
    backbone = backbone_for(name="vit_nano", depth=1)
    with pytest.raises(RunError, match="computes other values than torch at 48 x 80"):
        save_onnx(tmp_path / "m.onnx", backbone=backbone, contract=contract_for(3), card=CARD)
    assert not list(tmp_path.iterdir())
