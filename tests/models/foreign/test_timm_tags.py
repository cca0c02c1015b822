import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models import save_for_hf

from geodino.errors import CheckpointError
from geodino.models.foreign import open_foreign, timm_tag
from geodino.models.foreign.timm_tag import tag_contract, tags


def with_random_weights(name, path, **args):
    """A model of timm's with random weights, as a file where its tag would be fetched to."""
    torch.manual_seed(0)
    model = timm.create_model(name.partition(".")[0], pretrained=False, num_classes=0, **args)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    save_file(model.state_dict(), path)
    return model.eval()


@pytest.mark.parametrize(
    "name",
    [
        "vit_small_patch16_dinov3.lvd1689m",
        "vit_tiny_patch16_dinov3_qkvb.eupe_lvd1689m",
        "convnext_tiny.dinov3_lvd1689m",
    ],
)
def test_a_tag_computes_here_what_it_computes_in_timm(name, tmp_path, noise, monkeypatch):
    is_vit = name.startswith("vit")
    theirs = with_random_weights(
        name, tmp_path / "w.safetensors", **({"global_pool": "token"} if is_vit else {})
    )
    create = timm.create_model

    overlay = {"file": str(tmp_path / "w.safetensors")}

    def from_file(*args, **kwargs):
        return create(*args, pretrained_cfg_overlay=overlay, **kwargs)

    monkeypatch.setattr(timm, "create_model", from_file)
    loaded = open_foreign(f"timm:{name}")
    image = 127 + 40 * noise(1, 3, 64, 96)
    with torch.no_grad():
        tokens = loaded.backbone.tokens(image)
        expected = theirs(loaded.backbone.normalise(image))
    torch.testing.assert_close(tokens.cls, expected, atol=1e-5, rtol=0)
    noncommercial = "fair-noncommercial-research-license"
    assert loaded.license == (noncommercial if "eupe" in name else "dinov3-license")
    assert loaded.lineage[0].name == f"timm/{name}"
    if is_vit:
        assert torch.count_nonzero(loaded.backbone.mask_token) == 0


@pytest.mark.parametrize("is_safe", [True, False])
def test_a_folder_that_timm_wrote_is_opened_in_either_form(is_safe, tmp_path, noise):
    name = "vit_tiny_patch16_dinov3_qkvb"
    theirs = with_random_weights(name, tmp_path / "w.safetensors", global_pool="token")
    save_for_hf(theirs, tmp_path / "saved", safe_serialization=is_safe)
    loaded = open_foreign(str(tmp_path / "saved"))
    image = 127 + 40 * noise(1, 3, 32, 48)
    with torch.no_grad():
        expected = theirs(loaded.backbone.normalise(image))
        torch.testing.assert_close(loaded.backbone.tokens(image).cls, expected, atol=1e-5, rtol=0)
    (file,) = (path for path in (tmp_path / "saved").iterdir() if path.suffix != ".json")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: it holds no weights"):
        open_foreign(str(tmp_path / "saved"))


def test_every_dinov3_tag_is_known_with_the_statistics_of_its_images():
    known = tags()
    sizes = ("small", "small_plus", "base", "large", "huge_plus")
    expected = {f"vit_{s}_patch16_dinov3{q}.lvd1689m" for s in sizes for q in ("", "_qkvb")}
    expected |= {"vit_7b_patch16_dinov3.lvd1689m", "vit_7b_patch16_dinov3.sat493m"}
    expected |= {f"vit_large_patch16_dinov3{q}.sat493m" for q in ("", "_qkvb")}
    expected |= {f"convnext_{s}.dinov3_lvd1689m" for s in ("tiny", "small", "base", "large")}
    assert expected <= set(known)
    assert all("eupe" in name or name in expected for name in known), set(known) - expected
    for name in known:
        mean = (0.430, 0.411, 0.296) if "sat493m" in name else (0.485, 0.456, 0.406)
        assert tag_contract(name).mean == pytest.approx([255 * v for v in mean])


def test_an_unknown_tag_names_the_nearest():
    with pytest.raises(CheckpointError, match=r"Did you mean 'vit_large_patch16_dinov3.sat493m'"):
        open_foreign("timm:vit_large_patch16_dinov3.sat493")


def test_weights_that_cannot_be_fetched_are_one_sentence(monkeypatch):
    def refuse(*args, **kwargs):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(timm_tag, "_create", refuse)
    with pytest.raises(CheckpointError, match=r"could not be loaded.*no route.*give the folder"):
        open_foreign("timm:vit_small_patch16_dinov3.lvd1689m")
