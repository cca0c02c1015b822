import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from geodino.errors import CheckpointError
from geodino.models.foreign import is_foreign, open_foreign

TOLERANCE = {"atol": 1e-5, "rtol": 0}
MEAN = {3: [0.4, 0.5, 0.6], 5: [0.1, 0.2, 0.3, 0.4, 0.5]}


def compare(loaded, theirs, noise, *, size=(64, 96)):
    """Ours takes stored values, theirs what their preprocessing would have made of them."""
    image = 127 + 50 * noise(2, loaded.backbone.bands, *size)
    with torch.no_grad():
        tokens = loaded.backbone.tokens(image)
        found = theirs(loaded.backbone.normalise(image)).last_hidden_state
    ours = torch.cat((tokens.cls[:, None], tokens.registers, tokens.patches), dim=1)
    torch.testing.assert_close(ours, found, **TOLERANCE)


@pytest.mark.parametrize("bands", [3, 5])
@pytest.mark.parametrize("biased", [True, False], ids=["biases", "no biases"])
@pytest.mark.parametrize("gated", [True, False], ids=["swiglu", "mlp"])
def test_a_vit_of_transformers_computes_the_same_here(
    gated, biased, bands, tmp_path, vit, save_hub, noise
):
    theirs = vit(gated=gated, biased=biased, bands=bands)
    loaded = open_foreign(str(save_hub(theirs, tmp_path / "m", mean=MEAN[bands])))
    assert loaded.config.name.endswith("_qkvb") == biased
    assert loaded.contract.mean == pytest.approx([255 * v for v in MEAN[bands]])
    compare(loaded, theirs, noise)


@pytest.mark.parametrize("bands", [3, 5])
def test_a_convnext_of_transformers_computes_the_same_here(
    bands, tmp_path, convnext, save_hub, noise
):
    theirs = convnext(bands=bands)
    loaded = open_foreign(str(save_hub(theirs, tmp_path / "m", mean=MEAN[bands])))
    assert loaded.config.name == "convnext_atto"
    compare(loaded, theirs, noise)


def test_one_bias_of_two_is_enough_to_need_the_variant_with_biases(tmp_path, vit, save_hub, noise):
    theirs = vit(query_bias=True, value_bias=False)
    loaded = open_foreign(str(save_hub(theirs, tmp_path / "m")))
    assert torch.count_nonzero(loaded.backbone.trunk.blocks[0].attn.v_bias) == 0
    compare(loaded, theirs, noise)


def test_biases_that_are_all_zero_are_left_out(tmp_path, vit, save_hub, noise):
    theirs = vit()
    with torch.no_grad():
        for name, parameter in theirs.named_parameters():
            if name.endswith(("q_proj.bias", "v_proj.bias")):
                parameter.zero_()
    loaded = open_foreign(str(save_hub(theirs, tmp_path / "m")))
    assert loaded.config.name == "vit_small_patch16_dinov3"
    compare(loaded, theirs, noise)


def test_a_bias_of_the_keys_is_refused_unless_it_is_zero(tmp_path, vit, save_hub, noise):
    theirs = vit(key_bias=True)
    folder = save_hub(theirs, tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"k_proj.bias adds a bias to the keys"):
        open_foreign(str(folder))
    with torch.no_grad():
        for layer in theirs.model.layer:
            layer.attention.k_proj.bias.zero_()
    compare(open_foreign(str(save_hub(theirs, tmp_path / "zero"))), theirs, noise)


def test_shards_are_read_as_one_model(tmp_path, vit, save_hub, noise):
    theirs = vit()
    folder = save_hub(theirs, tmp_path / "m", max_shard_size="150KB")
    shards = sorted(folder.glob("model-*.safetensors"))
    assert len(shards) > 2
    assert is_foreign(folder)
    compare(open_foreign(str(folder)), theirs, noise)
    shards[1].unlink()
    with pytest.raises(CheckpointError, match=rf"lacks 1 of its {len(shards)} shards.*-00002-of"):
        open_foreign(str(folder))


def test_shards_of_two_downloads_are_told_apart(tmp_path, vit, save_hub):
    folder = save_hub(vit(), tmp_path / "m", max_shard_size="150KB")
    first = min(folder.glob("model-*.safetensors"))
    tensors = load_file(first)
    tensors.pop(min(tensors))
    save_file(tensors, first)
    with pytest.raises(CheckpointError, match="different downloads"):
        open_foreign(str(folder))


def test_a_shard_outside_of_the_folder_is_refused(tmp_path, vit, save_hub):
    folder = save_hub(vit(), tmp_path / "m", max_shard_size="150KB")
    index = folder / "model.safetensors.index.json"
    changed = json.loads(index.read_text())
    name = min(changed["weight_map"])
    changed["weight_map"][name] = "../../secret.safetensors"
    index.write_text(json.dumps(changed))
    with pytest.raises(CheckpointError, match="outside of its folder"):
        open_foreign(str(folder))


@pytest.mark.parametrize(
    ("key", "value"), [("layer_norm_eps", 1e-6), ("hidden_act", "relu"), ("model_type", "dinov2")]
)
def test_settings_that_would_change_the_features_are_refused(key, value, tmp_path, vit, save_hub):
    folder = save_hub(vit(), tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {key: value}))
    with pytest.raises(CheckpointError, match=str(value)):
        open_foreign(str(folder))


def test_a_size_that_no_table_names_needs_its_heads(tmp_path, vit, save_hub):
    folder = save_hub(vit(), tmp_path / "m")
    with pytest.raises(CheckpointError, match="how many attention heads"):
        open_foreign(str(folder / "model.safetensors"))


def test_five_bands_without_statistics_are_refused(tmp_path, vit, save_hub):
    with pytest.raises(CheckpointError, match="does not say their mean"):
        open_foreign(str(save_hub(vit(bands=5), tmp_path / "m")))


def test_a_convnext_of_no_named_size_is_refused(tmp_path, save_hub):
    from transformers import DINOv3ConvNextConfig, DINOv3ConvNextModel

    config = DINOv3ConvNextConfig(hidden_sizes=[8, 16, 24, 32], depths=[1, 1, 2, 1])
    folder = save_hub(DINOv3ConvNextModel(config), tmp_path / "m")
    with pytest.raises(CheckpointError, match=r"\(1, 1, 2, 1\) blocks that ends in width 32"):
        open_foreign(str(folder))


def test_the_licence_is_that_of_the_card_beside_the_weights(tmp_path, vit, save_hub):
    folder = save_hub(vit(), tmp_path / "m")
    assert open_foreign(str(folder)).license == "dinov3-license"
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# Mine\n")
    assert open_foreign(str(folder)).license == "apache-2.0"
    (folder / "README.md").write_text("---\nlicense: other\nlicense_name: house-rules\n---\n")
    loaded = open_foreign(str(folder))
    assert loaded.license == "house-rules"
    assert (loaded.lineage[0].name, loaded.lineage[0].relation) == ("m", "converted from")


def test_a_repository_is_opened_from_where_the_hub_library_puts_it(
    tmp_path, vit, save_hub, noise, monkeypatch
):
    import huggingface_hub

    theirs = vit()
    folder = save_hub(theirs, tmp_path / "cache")
    asked = []

    def snapshot_download(name, **options):
        asked.append((name, options["allow_patterns"]))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    loaded = open_foreign("hub:facebook/dinov3-small")
    compare(loaded, theirs, noise)
    assert asked[0][0] == "facebook/dinov3-small"
    assert "*.safetensors" in asked[0][1]
    assert not any(pattern.endswith((".bin", ".pth")) for pattern in asked[0][1])
    assert loaded.lineage[0].name == "facebook/dinov3-small"


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch):
    import huggingface_hub

    def refuse(name, **_):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match=r"could not be fetched.*no route.*give a folder"):
        open_foreign("hub:facebook/dinov3-small")


def test_a_missing_hub_library_is_one_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"pip install geodino\[hub\]"):
        open_foreign("hub:facebook/dinov3-small")
