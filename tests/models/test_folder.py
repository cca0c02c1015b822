import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from geodino.errors import CheckpointError
from geodino.models.card import Parent
from geodino.models.folder import load_model, save_model
from geodino.models.heads import HeadConfig, ProjectionHead

PLAIN_TIMM = """
import json, sys
import torch
try:
    import torchvision
except RuntimeError:  # compiled operators beside a CPU-only torch: declare what it asks for
    for name in [n for n in sys.modules if n.startswith("torchvision")]:
        del sys.modules[name]
    library = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        library.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import logging, warnings
warnings.simplefilter("error")
logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
import timm
torch.set_num_threads(1)
from safetensors.torch import load_file, save_file
out = {}
for folder in sys.argv[1:]:
    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    image = load_file(f"{folder}/../image.safetensors")["image"]
    with torch.no_grad():
        out["cls"] = model(image).contiguous()
        out["features"] = model.forward_features(image).contiguous()
    cfg = model.pretrained_cfg
    out["mean"], out["std"] = torch.tensor(cfg["mean"]), torch.tensor(cfg["std"])
    assert model.num_classes == 0 and model.num_features == out["cls"].shape[1]
    assert cfg["input_size"][0] == image.shape[1], cfg["input_size"]
    save_file(out, f"{folder}/../timm.safetensors")
assert not any(name.startswith("geodino") for name in sys.modules)
"""

EXPORTS = {
    "one_band": (1, "uint16", {"name": "vit_nano", "depth": 2}),
    "rgb": (3, "uint8", {"name": "vit_tiny", "depth": 2, "local_cls_norm": True}),
    "four_bands_patch_8": (4, "uint8", {"name": "vit_nano", "depth": 2, "patch_size": 8}),
    "twelve_bands": (
        12,
        "uint16",
        {"name": "vit_small_plus_patch16_dinov3_qkvb", "dim": 64, "depth": 2, "heads": 4},
    ),
    "no_layer_scale": (
        3,
        "float32",
        {"name": "vit_nano", "depth": 2, "layer_scale": 0, "rope": {"base": 50.0}},
    ),
    "convnext": (3, "uint8", {"name": "convnext_atto"}),
    "convnext_five_bands_stride_16": (5, "uint16", {"name": "convnext_atto", "patch_size": 16}),
}

HEAD = HeadConfig(prototypes=32, hidden=24, bottleneck=16)


def export(folder, backbone, contract, *, heads=None, **card):
    heads = heads or {}
    save_model(
        folder,
        backbone=backbone,
        heads=heads,
        contract=contract,
        config=backbone.config,
        head_configs=dict.fromkeys(heads, HEAD),
        card={"name": "test model", "created": "2026-01-01T00:00:00Z", **card},
    )


def head(backbone, seed):
    made = ProjectionHead(backbone.dim, HEAD)
    made.init_weights(torch.Generator().manual_seed(seed))
    return made


def test_plain_timm_opens_the_folder_and_computes_the_same(
    tmp_path, backbone_for, contract_for, noise
):
    models = {}
    for name, (bands, dtype, settings) in EXPORTS.items():
        contract = contract_for(bands, dtype=dtype)
        backbone = backbone_for(contract=contract, **settings)
        export(tmp_path / name / "model", backbone, contract)
        image = 100 + 50 * noise(2, bands, 64, 96)
        normalised = backbone.normalise(image)
        save_file({"image": normalised}, tmp_path / name / "image.safetensors")
        with torch.no_grad():
            models[name] = (backbone.tokens(image), contract, normalised)
    folders = [str(tmp_path / name / "model") for name in EXPORTS]
    done = subprocess.run(
        [sys.executable, "-c", PLAIN_TIMM, *folders],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""  # not even a warning of timm's
    for name, (tokens, contract, _) in models.items():
        found = load_file(tmp_path / name / "timm.safetensors")
        torch.testing.assert_close(found["cls"], tokens.cls, atol=1e-6, rtol=1e-6)
        if not name.startswith("convnext"):
            torch.testing.assert_close(found["features"][:, 5:], tokens.patches, atol=1e-6, rtol=0)
        scale = 255 if contract.dtype == "uint8" else 1
        torch.testing.assert_close(found["mean"] * scale, torch.tensor(contract.mean))
        torch.testing.assert_close(found["std"] * scale, torch.tensor(contract.std))


@pytest.mark.parametrize("case", EXPORTS)
def test_a_model_comes_back_bit_for_bit(case, tmp_path, backbone_for, contract_for, noise):
    bands, dtype, settings = EXPORTS[case]
    contract = contract_for(bands, dtype=dtype)
    backbone = backbone_for(contract=contract, **settings)
    heads = {"dino": head(backbone, 1), "ibot": head(backbone, 2)}
    export(tmp_path / "model", backbone, contract, heads=heads)
    loaded = load_model(tmp_path / "model")
    assert loaded.config == backbone.config
    assert loaded.contract == contract
    assert loaded.head_configs == {"dino": HEAD, "ibot": HEAD}
    assert not loaded.backbone.training
    for name, value in backbone.state_dict().items():
        assert torch.equal(loaded.backbone.state_dict()[name], value), name
    for name, made in heads.items():
        for key, value in made.state_dict().items():
            assert torch.equal(loaded.heads[name].state_dict()[key], value)
    image = 100 + 50 * noise(1, bands, 64, 64)
    with torch.no_grad():
        assert torch.equal(loaded.backbone.tokens(image).cls, backbone.tokens(image).cls)


@pytest.fixture
def folder(tmp_path, backbone_for, contract_for):
    contract = contract_for()
    backbone = backbone_for(contract=contract, name="vit_nano", depth=1, local_cls_norm=True)
    export(tmp_path / "model", backbone, contract, heads={"dino": head(backbone, 1)})
    return tmp_path / "model"


def test_the_folder_holds_what_it_promises_and_nothing_else(folder):
    assert sorted(p.name for p in folder.iterdir()) == [
        "README.md",
        "config.json",
        "contract.json",
        "heads.safetensors",
        "item.json",
        "model.safetensors",
    ]
    weights = load_file(folder / "model.safetensors")
    assert not any(k.startswith(("trunk", "mask_token", "local_cls_norm")) for k in weights)
    extras = load_file(folder / "heads.safetensors")
    assert {"mask_token", "local_cls_norm.weight", "dino.last_layer.weight"} <= extras.keys()
    config = json.loads((folder / "config.json").read_text())
    assert config["architecture"] == "vit_small_patch16_dinov3"
    assert config["model_args"]["embed_dim"] == 128


def test_a_second_export_replaces_the_first(folder, backbone_for, contract_for):
    backbone = backbone_for(name="convnext_atto")
    export(folder, backbone, contract_for())
    assert not (folder / "heads.safetensors").exists()
    assert load_model(folder).config.name == "convnext_atto"


def test_lineage_and_licence_travel_with_the_weights(tmp_path, backbone_for, contract_for):
    parent = Parent(name="timm:vit_large_patch16_dinov3.sat493m", relation="distilled from")
    backbone = backbone_for(name="vit_nano", depth=1)
    export(tmp_path, backbone, contract_for(), lineage=(parent,))
    loaded = load_model(tmp_path)
    assert loaded.license == "dinov3-license"
    assert loaded.lineage == (parent,)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["pretrained_cfg"]["license"] == "dinov3-license"
    assert "dinov3-license" in (tmp_path / "README.md").read_text()


def test_a_failed_export_leaves_no_half_file(folder, monkeypatch, backbone_for, contract_for):
    before = {p.name: p.read_bytes() for p in folder.iterdir()}

    def broken(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("geodino.models.folder.save_file", broken)
    with pytest.raises(Exception, match="disk is full"):
        export(folder, backbone_for(name="vit_nano", depth=1), contract_for())
    assert (folder / "model.safetensors").read_bytes() == before["model.safetensors"]
    assert sorted(p.name for p in folder.iterdir()) == sorted(before)


@pytest.mark.parametrize(
    "name", ["config.json", "contract.json", "model.safetensors", "heads.safetensors"]
)
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(CheckpointError, match=name):
        load_model(folder)


def test_a_folder_that_is_no_model_is_said_to_be_none(tmp_path):
    with pytest.raises(CheckpointError, match="not a model folder"):
        load_model(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["model.safetensors", "heads.safetensors"])
@pytest.mark.parametrize("keep", [0, 6, 1000])
def test_a_truncated_file_is_said_to_be_damaged(folder, name, keep):
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[:keep])
    with pytest.raises(CheckpointError, match=f"{name} is damaged"):
        load_model(folder)


def rewrite(path, change):
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def test_an_orphan_tensor_is_an_error(folder):
    rewrite(folder / "model.safetensors", lambda t: t.update(extra=torch.ones(1)))
    with pytest.raises(CheckpointError, match=r"1 tensor\(s\) have no place in the model.*extra"):
        load_model(folder)


def test_a_missing_tensor_is_an_error(folder):
    rewrite(folder / "heads.safetensors", lambda t: t.pop("mask_token"))
    with pytest.raises(CheckpointError, match=r"1 tensor\(s\) are missing.*mask_token"):
        load_model(folder)


def test_a_wrong_shape_is_an_error(folder):
    rewrite(folder / "model.safetensors", lambda t: t.update(cls_token=torch.ones(1, 1, 64)))
    with pytest.raises(CheckpointError, match=r"cls_token has shape \(1, 1, 64\)"):
        load_model(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not JSON"),
        ("{}", "another program"),
        ('{"geodino": 3}', "not an object"),
        ('{"geodino": {"version": "9", "model": {"name": "vit_gigantic"}, "heads": {}}}', "9"),
    ],
)
def test_a_config_we_cannot_read_is_explained(folder, text, message):
    (folder / "config.json").write_text(text)
    with pytest.raises(CheckpointError, match=message):
        load_model(folder)


def test_a_broken_contract_is_a_broken_model(folder):
    (folder / "contract.json").write_text('{"bands": []}')
    with pytest.raises(CheckpointError, match="not an input contract"):
        load_model(folder)


def test_heads_and_their_configs_must_have_the_same_names(tmp_path, backbone_for, contract_for):
    backbone = backbone_for(name="vit_nano", depth=1)
    with pytest.raises(ValueError, match="dino"):
        save_model(
            tmp_path,
            backbone=backbone,
            heads={"dino": head(backbone, 0)},
            contract=contract_for(),
            config=backbone.config,
            head_configs={},
            card={},
        )


def test_half_precision_weights_are_read_back_as_float32(tmp_path, backbone_for, contract_for):
    backbone = backbone_for(name="vit_nano", depth=1).bfloat16()
    export(tmp_path, backbone, contract_for())
    loaded = load_model(tmp_path).backbone
    assert torch.equal(loaded.trunk.cls_token, backbone.trunk.cls_token.float())
