"""CHMv2 in transformers' layout and in the release's: the same heights as transformers'."""

import json

import pytest
import torch
import torchvision  # noqa: F401  (loaded before transformers asks whether it is there)
from safetensors.torch import load_file, save_file
from transformers import CHMv2Config, CHMv2ForDepthEstimation

from geodino.errors import CheckpointError, ContractError
from geodino.geo.contract import Offer
from geodino.models.canopy_folder import load_canopy, save_canopy
from geodino.models.canopy_open import is_canopy, open_canopy
from geodino.models.foreign import open_foreign
from geodino.models.foreign.dpt_names import REFERENCE_DPT, TRANSFORMERS_DPT

BACKBONE = {
    "model_type": "dinov3_vit",
    "hidden_size": 64,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_hidden_layers": 4,
    "num_register_tokens": 4,
    "out_indices": [1, 2, 3, 4],
    "apply_layernorm": True,
    "reshape_hidden_states": True,
    "return_class_token": True,
    "key_bias": True,
    "layer_norm_eps": 1e-5,
}
HEAD = {
    "post_process_channels": [16, 24, 32, 48],
    "fusion_hidden_size": 16,
    "head_hidden_size": 12,
    "number_output_channels": 32,
}


def shake(model, seed=0):
    """Numbers that matter in every parameter, but biases of the keys, which DINOv3 has none of."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.endswith("k_proj.bias"):
                spread = 0.2 if parameter.ndim == 1 else 1.0 * parameter[0].numel() ** -0.5
                parameter.add_(spread * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def theirs(*, backbone=None, **settings):
    config = CHMv2Config(backbone_config={**BACKBONE, **(backbone or {})}, **{**HEAD, **settings})
    return shake(CHMv2ForDepthEstimation(config))


def their_heights(model, image, contract):
    """Heights of transformers for stored values, normalised by hand as its processor does."""
    mean = torch.tensor(contract.mean)[:, None, None]
    std = torch.tensor(contract.std)[:, None, None]
    with torch.no_grad():
        return model((image.float() - mean) / std).predicted_depth


def stored(*size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, size, generator=generator, dtype=torch.uint8)


@pytest.fixture
def hub_folder(tmp_path):
    model = theirs()
    model.save_pretrained(tmp_path / "hub")
    return model, tmp_path / "hub"


def changed(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"readout_type": "add"},
        {"readout_type": "ignore", "max_depth": 40.0},
        {"bins_strategy": "log", "norm_strategy": "softmax"},
        {"bins_strategy": "linear", "norm_strategy": "linear"},
    ],
)
def test_heights_are_transformers(settings, tmp_path):
    model = theirs(**settings)
    model.save_pretrained(tmp_path)
    assert is_canopy(tmp_path)
    loaded = open_canopy(tmp_path)
    image = stored(2, 3, 64, 96)
    heights = loaded.model.heights(image)
    expected = their_heights(model, image, loaded.contract)
    assert float(expected.std()) > 1e-2
    torch.testing.assert_close(heights, expected, atol=1e-4, rtol=0)
    assert loaded.model.is_frozen
    assert loaded.license == "dinov3-license"


def with_the_releases_epsilon(model):
    """The release's 1e-5; transformers' default for CHMv2 is 1e-6."""
    for module in model.modules():
        if isinstance(module, torch.nn.LayerNorm):
            module.eps = 1e-5
    return model


def test_norms_are_computed_with_the_releases_epsilon_whatever_transformers_writes(tmp_path):
    model = theirs(backbone={"layer_norm_eps": 1e-6})
    model.save_pretrained(tmp_path)
    loaded = open_canopy(tmp_path)
    image = stored(1, 3, 64, 64)
    heights = loaded.model.heights(image)
    near = their_heights(model, image, loaded.contract)
    same = their_heights(with_the_releases_epsilon(model), image, loaded.contract)
    torch.testing.assert_close(heights, near, atol=0.05, rtol=0)
    torch.testing.assert_close(heights, same, atol=1e-4, rtol=0)


def test_transformers_processor_normalises_as_the_contract_says(hub_folder):
    from transformers import CHMv2ImageProcessor

    contract = open_canopy(hub_folder[1]).contract
    image = stored(3, 32, 48)
    pixels = CHMv2ImageProcessor()(image, return_tensors="pt")["pixel_values"]
    by_hand = (image - torch.tensor(contract.mean)[:, None, None]) / torch.tensor(contract.std)[
        :, None, None
    ]
    torch.testing.assert_close(pixels[0], by_hand, atol=1e-5, rtol=0)


def test_the_contract_is_chmv2s_with_its_own_mean_of_red(hub_folder):
    contract = open_canopy(hub_folder[1]).contract
    assert contract.mean == pytest.approx([255 * v for v in (0.420, 0.411, 0.296)])
    assert contract.std == pytest.approx([255 * v for v in (0.213, 0.156, 0.143)])
    assert contract.dtype == "uint8"
    assert contract.band_names == ("red", "green", "blue")
    for gsd_m, is_met in ((0.3, True), (0.6, True), (1.2, True), (0.2, False), (1.5, False)):
        offer = Offer(source="a.tif", bands=contract.bands, dtype="uint8", gsd_m=(gsd_m, gsd_m))
        if is_met:
            contract.check(offer)
        else:
            with pytest.raises(ContractError, match="gsd"):
                contract.check(offer)


def test_a_preprocessor_beside_the_weights_is_believed(hub_folder):
    asked = {"image_mean": [0.1, 0.2, 0.3], "image_std": [0.4, 0.5, 0.6], "rescale_factor": 1 / 255}
    (hub_folder[1] / "preprocessor_config.json").write_text(json.dumps(asked))
    loaded = open_canopy(hub_folder[1])
    assert loaded.contract.mean == pytest.approx((25.5, 51.0, 76.5))
    assert loaded.model.backbone.mean.flatten().tolist() == pytest.approx([25.5, 51.0, 76.5])


def inverse(rules, others):
    """Names of the release for transformers' names, through ours."""
    import re

    from geodino.models.convert import convert

    def rename(key):
        ours = next(iter(convert({key: torch.zeros(1)}, rules, source="")))
        for rule in others:
            plain = re.sub(r"\\\.", ".", rule.pattern).replace("(weight|bias)", "{kind}")
            plain = plain.replace(r"(\d)", "{i}").replace(r"(\w+)", "{kind}")
            for i in "0123":
                for kind in ("weight", "bias"):
                    name = plain.format(i=i, kind=kind)
                    if list(convert({name: torch.zeros(1)}, others, source="")) == [ours]:
                        return name
        raise KeyError(key)

    return rename


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_the_releases_two_files_give_the_same_model(suffix, hub_folder, reference_state, tmp_path):
    loaded = open_canopy(hub_folder[1])
    name = inverse(TRANSFORMERS_DPT, REFERENCE_DPT)
    tensors = load_file(hub_folder[1] / "model.safetensors")
    head = {name(k.removeprefix("head.")): v for k, v in tensors.items() if k.startswith("head.")}
    backbone = reference_state(loaded.model.backbone)
    paths = [tmp_path / f"dinov3+vitl16{suffix}", tmp_path / f"chmv2_head{suffix}"]
    for path, state in zip(paths, (backbone, head), strict=True):
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    asked = f"{paths[0]}+{paths[1]}"
    assert is_canopy(asked)
    pair = open_canopy(asked)
    image = stored(1, 3, 50, 70)
    assert torch.equal(pair.model.heights(image), loaded.model.heights(image))
    assert pair.contract == loaded.contract
    assert [parent.name for parent in pair.lineage] == [path.name for path in paths]


def test_a_chmv2_that_was_opened_is_saved_as_a_model_folder_of_ours(hub_folder, tmp_path):
    loaded = open_canopy(hub_folder[1])
    card = {"name": "chm", "lineage": [parent.model_dump() for parent in loaded.lineage]}
    save_canopy(tmp_path / "ours", loaded.model, contract=loaded.contract, card=card)
    again = load_canopy(tmp_path / "ours")
    image = stored(1, 3, 40, 72)
    assert torch.equal(again.model.heights(image), loaded.model.heights(image))
    assert again.license == "dinov3-license"


def test_a_repository_of_the_hub_is_opened_like_a_folder(hub_folder, monkeypatch):
    from geodino.models import canopy_open

    asked = []
    monkeypatch.setattr(canopy_open, "fetch", lambda name: asked.append(name) or hub_folder[1])
    loaded = open_canopy("hub:facebook/dinov3-vitl16-chmv2-dpt-head")
    assert asked == ["facebook/dinov3-vitl16-chmv2-dpt-head"]
    assert loaded.lineage[0].name == "facebook/dinov3-vitl16-chmv2-dpt-head"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"bins_strategy": "linear"}, "no canopy model that geodino can give the same heights"),
        ({"norm_strategy": "cubic"}, "no canopy model that geodino can give the same heights"),
        ({"min_depth": 0.1}, r"min_depth is 0.1, but a canopy head of geodino has 0.001"),
        ({"reassemble_factors": [4, 4, 1, 0.5]}, "reassemble_factors"),
        ({"readout_type": "project", "backbone_config": None}, "no `backbone_config`"),
        ({"backbone_config": BACKBONE | {"layer_norm_eps": 1e-3}}, "layer_norm_eps is 0.001"),
        ({"backbone_config": BACKBONE | {"apply_layernorm": False}}, "apply_layernorm"),
        ({"backbone_config": BACKBONE | {"out_indices": [1, 2]}}, "four taps"),
        ({"backbone_config": BACKBONE | {"model_type": "swin"}}, "'swin', no ViT"),
    ],
)
def test_settings_that_would_change_the_heights_are_refused(values, message, hub_folder):
    changed(hub_folder[1], **values)
    with pytest.raises(CheckpointError, match=message):
        open_canopy(hub_folder[1])


def edited(folder, *, drop=(), add=None):
    state = load_file(folder / "model.safetensors")
    save_file(
        {k: v for k, v in state.items() if k not in drop} | (add or {}),
        folder / "model.safetensors",
        {"format": "pt"},
    )


@pytest.mark.parametrize(
    ("drop", "add", "message"),
    [
        (["head.convs.2.weight"], {}, r"1 tensor\(s\) are missing, e.g. reduce.2.weight"),
        ([], {"head.extra": torch.ones(2)}, r"1 key\(s\) match no rule, e.g. \['extra'\]"),
        ([], {"neck.extra": torch.ones(2)}, "neither backbone nor head"),
        (["head.conv_depth.head.4.weight"], {}, "the head lacks out.weight"),
        ([], {"backbone.layer.0.attention.k_proj.bias": torch.ones(64)}, "bias to the keys"),
    ],
)
def test_tensors_that_do_not_fit_are_one_sentence(drop, add, message, hub_folder):
    edited(hub_folder[1], drop=drop, add=add)
    with pytest.raises(CheckpointError, match=message):
        open_canopy(hub_folder[1])


def test_a_backbone_alone_and_another_head_are_refused(hub_folder, reference_state, tmp_path):
    backbone = open_canopy(hub_folder[1]).model.backbone
    torch.save(reference_state(backbone), tmp_path / "b.pth")
    with pytest.raises(CheckpointError, match=r"a backbone and a head\. Write BACKBONE\+HEAD"):
        open_canopy(tmp_path / "b.pth")
    torch.save({"convs.0.conv.weight": torch.ones(2, 2, 3, 3)}, tmp_path / "h.pth")
    with pytest.raises(CheckpointError, match="is not CHMv2's but that of another task"):
        open_canopy(f"{tmp_path / 'b.pth'}+{tmp_path / 'h.pth'}")
    with pytest.raises(CheckpointError, match=r"nowhere does not exist\. Give a run"):
        open_canopy(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="holds no canopy model: give a run"):
        open_canopy(tmp_path / "empty")


def test_where_a_backbone_is_wanted_a_canopy_model_says_so(hub_folder):
    with pytest.raises(CheckpointError, match="holds a canopy height model"):
        open_foreign(str(hub_folder[1]))


@pytest.mark.slow
def test_the_whole_model_gives_transformers_heights(tmp_path):
    # 336.9 million parameters, of which the head has 33,747,200; some 4 GB of memory.
    torch.manual_seed(0)
    model = shake(CHMv2ForDepthEstimation(CHMv2Config()))
    model.save_pretrained(tmp_path)
    image = stored(1, 3, 96, 64)
    loaded = open_canopy(tmp_path)
    assert sum(p.numel() for p in loaded.model.head_parameters()) == 33_747_200
    assert [tap.layer for tap in loaded.model.taps] == [5, 11, 17, 23]
    heights = loaded.model.heights(image)
    expected = their_heights(with_the_releases_epsilon(model), image, loaded.contract)
    assert float(expected.std()) > 1e-2
    torch.testing.assert_close(heights, expected, atol=1e-4, rtol=0)
