import json
import os

import pytest
import torch
from safetensors.torch import save_file

from geodino.errors import CheckpointError
from geodino.models.build import assemble
from geodino.models.foreign import is_foreign, open_foreign
from geodino.models.foreign.architecture import check_shapes, model_config
from geodino.models.foreign.layouts import rename
from geodino.models.heads import HeadConfig, ProjectionHead

SMALL = {"dim": 64, "depth": 2, "heads": 4}
MODELS = {
    "mlp": {"name": "vit_small_patch16_dinov3", **SMALL},
    "mlp with biases": {"name": "vit_small_patch16_dinov3_qkvb", **SMALL},
    "swiglu": {"name": "vit_small_plus_patch16_dinov3", **SMALL},
    "swiglu with biases": {"name": "vit_small_plus_patch16_dinov3_qkvb", **SMALL},
    "local CLS norm": {"name": "vit_small_patch16_dinov3_qkvb", "local_cls_norm": True, **SMALL},
    "no LayerScale": {"name": "vit_small_patch16_dinov3", "layer_scale": 0.0, **SMALL},
    "ViT-Ti": {"name": "vit_tiny"},
}


def same_features(loaded, backbone, noise):
    image = noise(2, backbone.bands, 48, 80)
    with torch.no_grad():
        (ours,) = loaded.backbone.encode([image])
        (theirs,) = backbone.encode([image])
        loaded.backbone.train()
        backbone.train()
        local = loaded.backbone.encode([image, image])[1], backbone.encode([image, image])[1]
    for found, expected in ((ours, theirs), local):
        assert torch.equal(found.cls, expected.cls)
        assert torch.equal(found.patches, expected.patches)


@pytest.mark.parametrize(
    ("name", "suffix"),
    [*((name, ".pth") for name in MODELS), ("mlp with biases", ".safetensors")],
)
def test_a_backbone_file_of_the_release_is_recognised_by_its_keys(
    name, suffix, tmp_path, backbone_for, reference_state, noise
):
    backbone = backbone_for(**MODELS[name])
    path = tmp_path / f"any name at all{suffix}"
    state = reference_state(backbone)
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    assert is_foreign(path)
    loaded = open_foreign(str(path))
    assert loaded.config == backbone.config
    assert loaded.license == "dinov3-license"
    assert loaded.lineage[0].name == path.name
    same_features(loaded, backbone, noise)


def test_the_extra_norm_tells_satellite_weights_from_web_weights(
    tmp_path, backbone_for, reference_state
):
    for local_cls_norm, mean in ((True, (0.430, 0.411, 0.296)), (False, (0.485, 0.456, 0.406))):
        backbone = backbone_for(**MODELS["mlp"], local_cls_norm=local_cls_norm)
        torch.save(reference_state(backbone), tmp_path / "w.pth")
        contract = open_foreign(str(tmp_path / "w.pth")).contract
        assert contract.mean == pytest.approx([255 * v for v in mean])
        assert contract.dtype == "uint8"
        assert contract.band_names == ("red", "green", "blue")
        assert contract.gsd_m == ((0.6, 0.6) if local_cls_norm else None)


def test_the_user_may_say_which_images_a_file_was_trained_on(
    tmp_path, backbone_for, reference_state
):
    torch.save(reference_state(backbone_for(**MODELS["mlp"])), tmp_path / "w.pth")
    named = f"{tmp_path / 'w.pth'}@sat493m"
    assert is_foreign(named)
    assert open_foreign(named).contract.mean[0] == pytest.approx(255 * 0.430)
    with pytest.raises(CheckpointError, match="Did you mean 'sat493m'"):
        open_foreign(named[:-1])


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_training_checkpoint_brings_the_teacher_with_its_heads(
    layers, tmp_path, backbone_for, reference_state, noise
):
    backbone = backbone_for(**MODELS["mlp with biases"])
    config = HeadConfig(prototypes=40, hidden=24, bottleneck=16, layers=layers)
    state = {f"backbone.{k}": v for k, v in reference_state(backbone).items()}
    heads = {}
    for seed, name in enumerate(("dino", "ibot")):
        heads[name] = ProjectionHead(64, config)
        heads[name].init_weights(torch.Generator().manual_seed(seed))
        state |= {f"{name}_head.{k}": v for k, v in heads[name].state_dict().items()}
    wrapped = {"teacher": {f"module.{k}": v for k, v in state.items()}, "iteration": 7}
    torch.save(wrapped, tmp_path / "checkpoint.pth")
    loaded = open_foreign(str(tmp_path / "checkpoint.pth"))
    same_features(loaded, backbone, noise)
    features = noise(5, 64)
    assert list(loaded.heads) == ["dino", "ibot"]
    for name, head in heads.items():
        assert loaded.head_configs[name].layers == layers
        assert torch.equal(loaded.heads[name](features), head(features))


def test_a_bias_of_the_keys_is_refused_where_no_mask_hides_it(
    tmp_path, backbone_for, reference_state
):
    state = reference_state(backbone_for(**MODELS["mlp with biases"]), key_bias=torch.ones(64))
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"blocks.0.attn.qkv.bias adds a bias to the keys"):
        open_foreign(str(tmp_path / "w.pth"))


def test_a_mask_that_was_never_set_is_refused(tmp_path, backbone_for, reference_state):
    state = reference_state(backbone_for(**MODELS["mlp with biases"]))
    state["blocks.1.attn.qkv.bias_mask"].fill_(float("nan"))
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="bias_mask holds NaN"):
        open_foreign(str(tmp_path / "w.pth"))


def test_other_rotary_periods_are_refused(tmp_path, backbone_for, reference_state):
    state = reference_state(backbone_for(**MODELS["mlp"]))
    state["rope_embed.periods"] *= 1.05
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="rotary periods are not those of base 100"):
        open_foreign(str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("drop", "add", "message"),
    [
        ("blocks.1.mlp.fc2.bias", None, r"1 tensor\(s\) are missing, e.g. trunk.blocks.1.mlp"),
        (None, "blocks.1.mlp.gate", r"1 key\(s\) match no rule, e.g. \['blocks.1.mlp.gate'\]"),
        ("norm.weight", None, "lacks its last norm"),
        ("storage_tokens", None, "is no DINOv3 backbone"),
    ],
)
def test_a_key_too_few_or_too_many_is_one_sentence(
    drop, add, message, tmp_path, backbone_for, reference_state
):
    state = reference_state(backbone_for(**MODELS["mlp"]))
    state.pop(drop, None)
    state |= {} if add is None else {add: torch.ones(3)}
    torch.save(state, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=message):
        open_foreign(str(tmp_path / "w.pth"))


def test_a_head_that_is_not_ours_is_an_orphan(tmp_path, backbone_for, reference_state):
    state = {f"backbone.{k}": v for k, v in reference_state(backbone_for(**MODELS["mlp"])).items()}
    torch.save(state | {"gram_backbone.x": torch.ones(1)}, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match=r"neither backbone.*'gram_backbone.x'"):
        open_foreign(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_file_that_was_cut_off_is_one_sentence(suffix, tmp_path, backbone_for, reference_state):
    state = reference_state(backbone_for(**MODELS["mlp"]))
    path = tmp_path / f"w{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    os.truncate(path, path.stat().st_size // 2)
    with pytest.raises(CheckpointError, match=r"w\..*is damaged.*get (it|the file) again"):
        open_foreign(str(path))


class Foreign:
    """Something that only its own program can unpickle."""


@pytest.mark.parametrize("content", [{"teacher": Foreign()}, Foreign(), os.system])
def test_a_pickle_of_more_than_tensors_is_never_run(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="never runs what a pickle holds"):
        open_foreign(str(tmp_path / "w.pth"))


@pytest.mark.parametrize("content", [[1, 2], {}, {"epoch": 3, "loss": 0.5}])
def test_a_file_without_weights_says_so(content, tmp_path):
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(CheckpointError, match="no weights"):
        open_foreign(str(tmp_path / "w.pth"))


def test_what_is_not_there_is_one_sentence(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        open_foreign(str(tmp_path / "w.pth"))
    with pytest.raises(CheckpointError, match="is no model"):
        open_foreign(str(tmp_path / "nowhere"))


PUBLISHED = {
    "vits16": "vit_small_patch16_dinov3",
    "vits16plus": "vit_small_plus_patch16_dinov3",
    "vitb16": "vit_base_patch16_dinov3",
    "vitl16_lvd": "vit_large_patch16_dinov3",
    "vitl16_sat493m": "vit_large_patch16_dinov3",
    "vitl16plus": "vit_small_plus_patch16_dinov3",
    "vith16plus": "vit_huge_plus_patch16_dinov3",
    "vit7b16": "vit_7b_patch16_dinov3",
    "convnext_tiny": "convnext_tiny",
    "convnext_small": "convnext_small",
    "convnext_base": "convnext_base",
    "convnext_large": "convnext_large",
}


def manifest_state(manifest, *, bias):
    """A manifest's tensors without their memory: one number each, under every index."""
    state = {}
    for key, entry in manifest["entries"].items():
        value = torch.zeros(()).expand(entry["shape"])
        if key.endswith("qkv.bias_mask"):
            third = entry["shape"][0] // 3
            value = torch.cat((torch.ones(third), torch.zeros(third), torch.ones(third)))
        elif key.endswith("qkv.bias"):
            value = torch.full(entry["shape"], bias)
        elif key.endswith("periods"):
            value = 100.0 ** (torch.arange(len(value)) / len(value))
        for i in range(manifest.get("n_blocks", 1)) if key.startswith("blocks.0.") else (0,):
            state[key.replace("blocks.0.", f"blocks.{i}.", 1)] = value
    return state


@pytest.mark.parametrize(
    ("name", "bias"), [*((name, 0.0) for name in PUBLISHED), ("vits16", 0.5), ("vitl16plus", 0.5)]
)
def test_every_published_model_is_found_by_its_names_and_shapes(shared_golden, name, bias):
    manifest = json.loads((shared_golden / "statedict_manifests.json").read_text())[name]
    renamed = rename(manifest_state(manifest, bias=bias), source=name)
    config = model_config(renamed, source=name)
    has_biases = any(k.endswith("qkv.bias") for k in manifest["entries"])
    assert config.name == PUBLISHED[name] + ("_qkvb" if bias and has_biases else "")
    assert config.local_cls_norm == (name in ("vitl16_sat493m", "vit7b16"))
    model = assemble(config, mean=[0.0] * 3, std=[1.0] * 3)
    check_shapes(renamed.backbone, model.state_dict(), what=config.name, source=name)
    if name == "vitl16plus":
        assert (config.dim, config.depth, config.heads) == (1024, 24, 16)
    else:
        assert (config.dim, config.depth, config.heads) == (None, None, None)
