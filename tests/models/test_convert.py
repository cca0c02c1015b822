import json

import pytest
import torch
from safetensors.torch import load_file
from timm.models import model_entrypoint

from geodino.errors import CheckpointError
from geodino.models.build import assemble, materialise, wrap
from geodino.models.convert import (
    REFERENCE_CONVNEXT,
    REFERENCE_VIT,
    Rule,
    convert,
    drop_zero_biases,
)
from geodino.models.sizes import ModelConfig

TOLERANCE = {"atol": 1e-5, "rtol": 0}


def test_keys_are_renamed_cut_or_dropped_by_rule():
    rules = (Rule(r"a\.(\d)", (r"b.\1",)), Rule(r"c", ("q", None, "v")), Rule(r"junk.*", (None,)))
    state = {"a.3": torch.ones(2), "c": torch.arange(6.0), "junk.7": torch.ones(1)}
    found = convert(state, rules, source="x.pth")
    assert {k: v.tolist() for k, v in found.items()} == {"b.3": [1, 1], "q": [0, 1], "v": [4, 5]}


def test_a_key_without_a_rule_is_an_error():
    with pytest.raises(CheckpointError, match=r"x.pth: 1 key.*\['unheard_of'\]"):
        convert({"unheard_of": torch.ones(1)}, REFERENCE_VIT, source="x.pth")


def test_two_keys_for_one_name_are_an_error():
    rules = (Rule(r"[ab]", ("c",)),)
    with pytest.raises(CheckpointError, match="both become c"):
        convert({"a": torch.ones(1), "b": torch.ones(1)}, rules, source="x.pth")


def test_biases_are_left_out_only_if_they_are_zero():
    state = {"x.q_bias": torch.zeros(2), "w": torch.ones(1)}
    assert list(drop_zero_biases(state, source="x.pth")) == ["w"]
    with pytest.raises(CheckpointError, match="_qkvb"):
        drop_zero_biases({"x.v_bias": torch.tensor([0.0, 1e-9])}, source="x.pth")


NAMES = {
    "vit_tiny_mlp": "vit_small_patch16_dinov3_qkvb",
    "vit_tiny_swiglu": "vit_small_plus_patch16_dinov3_qkvb",
}


def reference_model(name, folder):
    """The reference's tensors and our backbone with its weights, for inputs as they are."""
    golden = load_file(folder / f"{name}.safetensors")
    backbone = assemble(
        ModelConfig(name=NAMES[name], dim=64, depth=4, heads=4), mean=[0.0] * 3, std=[1.0] * 3
    )
    materialise(backbone)
    state = {k.removeprefix("state."): v for k, v in golden.items() if k.startswith("state.")}
    backbone.load_state_dict(convert(state, REFERENCE_VIT, source="golden"))
    return golden, backbone.eval()


@pytest.fixture(params=NAMES)
def reference(request, shared_golden):
    return reference_model(request.param, shared_golden)


def compare(tokens, golden, key, names=("x_norm_clstoken", "x_norm_patchtokens")):
    cls, patches = names
    torch.testing.assert_close(tokens.cls, golden[f"{key}.{cls}"], **TOLERANCE)
    if f"{key}.{patches}" in golden:
        torch.testing.assert_close(tokens.patches, golden[f"{key}.{patches}"], **TOLERANCE)


@pytest.mark.parametrize("size", ["x64", "x48x80", "x64masked"])
def test_tokens_agree_with_the_reference(reference, size):
    golden, backbone = reference
    mask = golden["mask64"] if size == "x64masked" else None
    image = golden[f"in.{size.removesuffix('masked')}"]
    with torch.no_grad():
        (tokens,) = backbone.encode([image], masks=[mask])
    compare(tokens, golden, f"out.{size}")
    torch.testing.assert_close(
        tokens.registers, golden[f"out.{size}.x_storage_tokens"], **TOLERANCE
    )


@pytest.mark.parametrize("norm", [0, 1])
@pytest.mark.parametrize("size", ["x64", "x48x80"])
def test_taps_agree_with_the_reference(reference, size, norm):
    golden, backbone = reference
    with torch.no_grad():
        taps = backbone.tap(golden[f"in.{size}"], range(4), norm=bool(norm))
        last = backbone.feature_maps(golden[f"in.{size}"], [-1])[0]
    for number, tokens in enumerate(taps):
        key = f"inter.{size}.norm{norm}.{number}"
        compare(tokens, golden, key, names=("cls", "patch"))
        torch.testing.assert_close(tokens.registers, golden[f"{key}.extra"], **TOLERANCE)
    prenorm = golden[f"out.{size}.x_prenorm"]
    if not norm:
        whole = torch.cat((taps[3].cls[:, None], taps[3].registers, taps[3].patches), dim=1)
        torch.testing.assert_close(whole, prenorm, **TOLERANCE)
    elif size == "x48x80":
        torch.testing.assert_close(last, golden["inter.x48x80.reshaped_last"], **TOLERANCE)


@pytest.mark.parametrize("mode", ["list", "list_train"])
def test_crop_lists_agree_with_the_reference(reference, mode):
    golden, backbone = reference
    backbone.train(mode == "list_train")
    with torch.no_grad():
        crops = backbone.encode(
            [golden["in.x64"], golden["in.x32local"]], masks=[golden["mask64"], None]
        )
    for tokens, which in zip(crops, ("global", "local"), strict=True):
        compare(tokens, golden, f"out.{mode}.{which}", names=("cls", "patch"))


def gradients_under_our_names(golden):
    reference = {k.removeprefix("grad."): v for k, v in golden.items() if k.startswith("grad.")}
    objective = reference.pop("scalar")
    return objective, convert(reference, REFERENCE_VIT, source="golden")


def test_gradients_agree_with_the_reference(reference):
    golden, backbone = reference
    objective, expected = gradients_under_our_names(golden)
    (tokens,) = backbone.encode([golden["in.x64"]], masks=[golden["mask64"]])
    weights = fill("grad:cls", tokens.cls.shape), fill("grad:patch", tokens.patches.shape)
    total = (tokens.cls * weights[0]).sum() + (tokens.patches * weights[1]).mean()
    torch.testing.assert_close(total.detach(), objective.view(()), atol=1e-4, rtol=1e-5)
    total.backward()
    found = {k: p.grad for k, p in backbone.named_parameters()}
    # The one gradient that was not recorded, for its size.
    assert found.keys() - expected.keys() == {"trunk.patch_embed.proj.weight"}
    for name, gradient in expected.items():
        torch.testing.assert_close(
            found[name], gradient, atol=1e-5 * max(1.0, gradient.abs().max().item()), rtol=0
        )


def test_float64_agrees_with_the_reference_in_float64(shared_golden):
    golden, backbone = reference_model("vit_tiny_mlp", shared_golden)
    with torch.no_grad():
        (tokens,) = backbone.double().encode([golden["in.x64"].double()], masks=[golden["mask64"]])
    # The rotary tables are float32 on purpose, hence no 1e-10.
    for ours, name in ((tokens.cls, "cls"), (tokens.patches, "patch")):
        torch.testing.assert_close(ours, golden[f"f64.out.x64masked.{name}"], atol=2e-6, rtol=0)


def fill(key, shape):
    """The deterministic numbers the reference was fed: splitmix64 of the key's CRC-32."""
    import zlib

    import numpy as np

    count = int(np.prod(shape))
    with np.errstate(over="ignore"):
        z = (np.uint64(zlib.crc32(key.encode())) << np.uint64(32)) + np.arange(
            1, count + 1, dtype=np.uint64
        ) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    uniform = (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return torch.from_numpy((3**0.5 * (2 * uniform - 1)).astype(np.float32)).view(shape)


MODELS = {
    "vits16": ModelConfig(name="vit_small_patch16_dinov3_qkvb"),
    "vits16plus": ModelConfig(name="vit_small_plus_patch16_dinov3_qkvb"),
    "vitb16": ModelConfig(name="vit_base_patch16_dinov3_qkvb"),
    "vitl16_lvd": ModelConfig(name="vit_large_patch16_dinov3_qkvb"),
    "vitl16_sat493m": ModelConfig(name="vit_large_patch16_dinov3_qkvb", local_cls_norm=True),
    "vitl16plus": ModelConfig(name="vit_large_patch16_dinov3_qkvb"),
    "vith16plus": ModelConfig(name="vit_huge_plus_patch16_dinov3_qkvb"),
    "vit7b16": ModelConfig(name="vit_7b_patch16_dinov3", local_cls_norm=True),
    "convnext_tiny": ModelConfig(name="convnext_tiny"),
    "convnext_small": ModelConfig(name="convnext_small"),
    "convnext_base": ModelConfig(name="convnext_base"),
    "convnext_large": ModelConfig(name="convnext_large"),
}


def meta(name):
    config, statistics = MODELS[name], {"mean": [0.0] * 3, "std": [1.0] * 3}
    if name != "vitl16plus":
        return assemble(config, **statistics)
    # The one published width that timm does not list: ViT-L with the gated FFN of the plus sizes.
    args = config.timm_args(bands=3) | {"swiglu_mlp": True, "swiglu_align_to": 8}
    trunk = model_entrypoint(config.size.architecture)(device="meta", **args)
    return wrap(trunk, config=config, **statistics)


def entries(manifest):
    """All keys of a manifest; a ViT's lists block 0 for all of its identical blocks."""
    blocks = range(manifest.get("n_blocks", 1))
    for key, entry in manifest["entries"].items():
        for i in blocks if key.startswith("blocks.0.") else (0,):
            yield key.replace("blocks.0.", f"blocks.{i}.", 1), entry


@pytest.mark.parametrize("name", MODELS)
def test_every_published_tensor_has_its_place_and_every_place_its_tensor(shared_golden, name):
    manifest = json.loads((shared_golden / "statedict_manifests.json").read_text())[name]
    state = {k: torch.empty(e["shape"], device="meta") for k, e in entries(manifest)}
    rules = REFERENCE_CONVNEXT if name.startswith("convnext") else REFERENCE_VIT
    backbone = meta(name)
    found = {k: v.shape for k, v in convert(state, rules, source=name).items()}
    assert found == {k: v.shape for k, v in backbone.state_dict().items()}
    # Ours have no bias for the keys; theirs count it although its mask is zero.
    ours = sum(p.numel() for p in backbone.parameters())
    masked = backbone.depth * backbone.dim if any(k.endswith("q_bias") for k in found) else 0
    assert ours + masked == manifest["n_params"]
