import pytest
import torch
from safetensors.torch import load_file
from timm.models.convnext import ConvNeXt
from torch import nn

from geodino.errors import ContractError
from geodino.models.build import wrap
from geodino.models.convert import REFERENCE_CONVNEXT, convert
from geodino.models.sizes import ModelConfig


@pytest.mark.parametrize("patch", [None, 16, 8])
@pytest.mark.parametrize("name", ["convnext_atto", "convnext_nano"])
def test_cls_and_patches_are_timms(name, patch, backbone_for, noise):
    backbone = backbone_for(4, name=name, patch_size=patch)
    image = 100 + 50 * noise(2, 4, 64, 96)
    stride = patch or 32
    with torch.no_grad():
        tokens = backbone.tokens(image)
        normalised = backbone.normalise(image)
        assert torch.equal(tokens.cls, backbone.trunk(normalised))
        last = backbone.trunk.head.norm(backbone.trunk.forward_features(normalised))
    assert tokens.grid == (64 // stride, 96 // stride)
    assert torch.equal(tokens.map, last)
    assert tokens.registers.shape == (2, 0, backbone.dim)


def test_taps_are_timms_stages(backbone_for, noise):
    backbone = backbone_for(name="convnext_atto")
    image = 100 + 50 * noise(1, 3, 64, 64)
    with torch.no_grad():
        maps = backbone.feature_maps(image, [0, 1, 2, 3], norm=False)
        theirs = backbone.trunk.forward_intermediates(
            backbone.normalise(image), intermediates_only=True
        )
    assert backbone.layers == 4
    assert all(torch.equal(a, b) for a, b in zip(maps, theirs, strict=True))


def test_masked_patches_are_the_band_mean(backbone_for, noise):
    backbone = backbone_for(name="convnext_atto")
    crop, mask = noise(1, 3, 64, 64), torch.tensor([[True, False, False, True]])
    hidden = crop.clone()
    hidden[:, :, :32, :32] = 0
    hidden[:, :, 32:, 32:] = 0
    with torch.no_grad():
        (masked,) = backbone.encode([crop], masks=[mask])
        (expected,) = backbone.encode([hidden])
    assert torch.equal(masked.patches, expected.patches)


def test_sides_that_do_not_divide_are_refused(backbone_for):
    with pytest.raises(ContractError, match="patches of 32"):
        backbone_for(name="convnext_atto").tokens(torch.zeros(1, 3, 48, 64))


def test_checkpointing_gives_the_same_gradients(backbone_for, noise):
    gradients = []
    for checkpointing in (False, True):
        backbone = backbone_for(name="convnext_atto", activation_checkpointing=checkpointing)
        backbone.encode([noise(2, 3, 32, 32)])[0].cls.square().sum().backward()
        gradients.append([p.grad for p in backbone.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.fixture
def golden(shared_golden):
    return load_file(shared_golden / "convnext_tiny.safetensors")


def reference(golden, bands):
    trunk = ConvNeXt(in_chans=bands, num_classes=0, dims=(8, 16, 24, 32), depths=(1, 1, 2, 1))
    backbone = wrap(
        trunk, config=ModelConfig(name="convnext_tiny"), mean=[0.0] * bands, std=[1.0] * bands
    )
    prefix = f"c{bands}.state."
    state = {k.removeprefix(prefix): v for k, v in golden.items() if k.startswith(prefix)}
    backbone.load_state_dict(convert(state, REFERENCE_CONVNEXT, source="golden"))
    return backbone.eval()


@pytest.mark.parametrize("size", ["x64", "x96x160"])
@pytest.mark.parametrize(("bands", "variant"), [(3, "nopatch"), (5, "c5_patch8")])
def test_tokens_agree_with_the_reference(golden, bands, variant, size):
    with torch.no_grad():
        tokens = reference(golden, bands).tokens(golden[f"in.{size}.c{bands}"])
    for ours, name in ((tokens.cls, "x_norm_clstoken"), (tokens.patches, "x_norm_patchtokens")):
        torch.testing.assert_close(ours, golden[f"{variant}.{size}.{name}"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("size", ["x64", "x96x160"])
def test_taps_agree_with_the_reference(golden, size, norm):
    with torch.no_grad():
        taps = reference(golden, 3).tap(golden[f"in.{size}.c3"], range(4), norm=norm)
    for stage, tokens in enumerate(taps):
        key = f"nopatch.{size}.inter.norm{int(norm)}.{stage}"
        torch.testing.assert_close(tokens.map, golden[f"{key}.patch"], atol=1e-5, rtol=0)
        torch.testing.assert_close(tokens.cls, golden[f"{key}.cls"], atol=1e-5, rtol=0)


def test_a_trunk_has_no_randomness_of_its_own(backbone_for):
    backbone = backbone_for(name="convnext_atto").train()
    dropouts = [m for m in backbone.modules() if isinstance(m, nn.Dropout) and m.p > 0]
    assert dropouts == []
