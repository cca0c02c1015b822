import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from geodino.errors import CheckpointError
from geodino.models.canopy import CanopyConfig, build_canopy
from geodino.models.canopy_folder import load_canopy, save_canopy
from geodino.models.canopy_open import is_canopy, open_canopy
from geodino.models.decoders.dpt import DptConfig
from geodino.models.decoders.linear import LinearHeadConfig
from geodino.models.folder import load_model

HEADS = {
    "dpt": DptConfig(channels=(8, 12, 16, 20), fusion=16, hidden=12),
    "batch norm": DptConfig(channels=(8, 12, 16, 20), fusion=16, hidden=12, batch_norm=True),
    "linear": LinearHeadConfig(use="last"),
}
EXTRA = {"gsd_m": 0.6, "chip": {"size": 416, "overlap": 64}, "calibration": [1.0, 0.25]}


def save(folder, backbone, contract, *, head="dpt", extra=None, seed=0, **settings):
    config = CanopyConfig(head=HEADS[head], bins={"count": 16, "ceiling_m": 50.0}, **settings)
    model = build_canopy(backbone, config, generator=torch.Generator().manual_seed(seed)).eval()
    card = {"name": "canopy", "created": "2026-01-01T00:00:00Z"}
    save_canopy(folder, model, contract=contract, card=card, extra=extra)
    return model


@pytest.mark.parametrize(
    ("head", "name"),
    [("dpt", "vit_nano"), ("linear", "convnext_atto"), ("batch norm", "vit_nano")],
)
def test_a_canopy_model_comes_back_bit_for_bit(
    head, name, tmp_path, backbone_for, contract_for, noise
):
    contract = contract_for(4)
    backbone = backbone_for(contract=contract, name=name)
    model = save(tmp_path, backbone, contract, head=head, extra=EXTRA, quantiles=(0.05, 0.95))
    loaded = load_canopy(tmp_path)
    image = 100 + 40 * noise(1, 4, 50, 70)
    assert torch.equal(loaded.model(image), model(image))
    assert loaded.model.config == model.config
    assert loaded.contract == contract
    assert loaded.extra == EXTRA
    assert loaded.model.is_frozen
    assert not loaded.model.training


def test_the_folder_is_still_a_backbone_for_timm_and_for_us(
    tmp_path, backbone_for, contract_for, noise
):
    contract = contract_for(3)
    model = save(tmp_path, backbone_for(contract=contract, name="vit_nano"), contract)
    image = 100 + 40 * noise(1, 3, 64, 64)
    plain = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    with torch.no_grad():
        cls = plain(model.backbone.normalise(image))
        torch.testing.assert_close(cls, model.backbone.tokens(image).cls, atol=1e-6, rtol=1e-6)
        assert torch.equal(
            load_model(tmp_path).backbone.tokens(image).cls, model.backbone.tokens(image).cls
        )


def test_a_run_is_opened_by_its_own_folder_or_by_the_models(tmp_path, backbone_for, contract_for):
    contract = contract_for(3)
    save(tmp_path / "model", backbone_for(contract=contract, name="vit_nano"), contract)
    for folder in (tmp_path, tmp_path / "model", str(tmp_path)):
        assert is_canopy(folder)
        assert open_canopy(folder).contract == contract
    assert not is_canopy(tmp_path / "elsewhere")


def test_what_the_file_says_is_readable(tmp_path, backbone_for, contract_for):
    contract = contract_for(3)
    save(tmp_path, backbone_for(contract=contract, name="vit_nano"), contract, extra=EXTRA)
    told = json.loads((tmp_path / "canopy.json").read_text())
    assert told["unit"] == "m"
    assert told["taps"] == [1, 2, 4, 5]
    assert told["bins_m"][0] == pytest.approx(0.008)
    assert told["bins_m"][-1] == pytest.approx(50.0)
    assert told["extra"] == EXTRA


def test_an_extra_that_is_no_json_is_the_callers_mistake(tmp_path, backbone_for, contract_for):
    contract = contract_for(3)
    backbone = backbone_for(contract=contract, name="vit_nano")
    with pytest.raises(ValueError, match="JSON"):
        save(tmp_path, backbone, contract, extra={"x": float("nan")})
    assert not (tmp_path / "canopy.json").exists()


def test_a_head_beside_other_weights_is_refused(tmp_path, backbone_for, contract_for):
    contract = contract_for(3)
    save(tmp_path, backbone_for(contract=contract, name="vit_nano"), contract)
    weights = load_file(tmp_path / "model.safetensors")
    weights["cls_token"] += 1
    save_file(weights, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(CheckpointError, match="trained on other weights than those in model"):
        load_canopy(tmp_path)


def test_a_head_of_another_model_is_refused(tmp_path, backbone_for, contract_for):
    contract = contract_for(3)
    backbone = backbone_for(contract=contract, name="vit_nano")
    save(tmp_path / "a", backbone, contract, head="linear")
    save(tmp_path / "b", backbone, contract)
    (tmp_path / "a" / "canopy.safetensors").replace(tmp_path / "b" / "canopy.safetensors")
    with pytest.raises(CheckpointError, match=r"its canopy\.json describes"):
        load_canopy(tmp_path / "b")
    with pytest.raises(CheckpointError, match=r"has no canopy\.safetensors"):
        load_canopy(tmp_path / "a")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        ({"unit": "ft"}, r"its unit \(ft\)"),
        ({"taps": [0, 1, 2, 3]}, r"taps \(\[0, 1, 2, 3\]\)"),
        ({"bins_m": [1.0, 2.0]}, "or bins are not what this version"),
        ({"config": {"head": {"kind": "unet"}}}, "unet"),
        ({"config": {"head": {"kind": "linear", "widht": 3}}}, "widht"),
        ({"config": {"head": {"kind": "dpt", "taps": [0, 1, 2, 99]}}}, "has 6 layers"),
    ],
)
def test_a_description_that_does_not_hold_is_one_sentence(
    edit, message, tmp_path, backbone_for, contract_for
):
    contract = contract_for(3)
    save(tmp_path, backbone_for(contract=contract, name="vit_nano"), contract)
    path = tmp_path / "canopy.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | edit))
    with pytest.raises(CheckpointError, match=message):
        load_canopy(tmp_path)


@pytest.mark.parametrize(("text", "message"), [("{", "is not JSON"), ("[]", "no JSON object")])
def test_a_damaged_description_is_one_sentence(text, message, tmp_path, backbone_for, contract_for):
    contract = contract_for(3)
    save(tmp_path, backbone_for(contract=contract, name="vit_nano"), contract)
    (tmp_path / "canopy.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_canopy(tmp_path)
