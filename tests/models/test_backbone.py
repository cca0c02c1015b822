import copy

import pytest
import torch
import torchvision  # noqa: F401  (loaded before transformers asks whether it is there)
from transformers import DINOv3ViTConfig, DINOv3ViTModel

from geodino.errors import ContractError
from geodino.models.draws import draw_encode

SMALL = {"name": "vit_small_patch16_dinov3_qkvb", "dim": 64, "depth": 4, "heads": 4}


def test_stored_values_are_normalised_by_the_contract(backbone_for, contract_for):
    backbone = backbone_for(
        contract=contract_for(2, mean=(10.0, 20.0), std=(2.0, 5.0)), name="vit_nano", depth=1
    )
    image = torch.tensor([12, 30], dtype=torch.uint8).view(1, 2, 1, 1)
    assert backbone.normalise(image).flatten().tolist() == [1.0, 2.0]


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int16, torch.float64])
def test_every_stored_type_is_read(backbone_for, dtype):
    backbone = backbone_for(name="vit_nano", depth=1)
    image = torch.full((1, 3, 16, 16), 100).to(dtype)
    expected = backbone.normalise(torch.full((1, 3, 16, 16), 100.0))
    assert torch.equal(backbone.normalise(image), expected)


@pytest.mark.parametrize("fill", [0.0, -9999.0, 65535.0, float("nan"), float("inf")])
def test_what_lies_under_invalid_pixels_changes_no_bit_of_the_features(fill, backbone_for):
    backbone = backbone_for(name="vit_nano", depth=2)
    generator = torch.Generator().manual_seed(0)
    image = torch.rand((2, 3, 32, 32), generator=generator) * 255
    valid = torch.rand((2, 32, 32), generator=generator) > 0.3
    filled = torch.where(valid[:, None], image, fill)
    with torch.no_grad():
        expected, got = backbone.tokens(image, valid), backbone.tokens(filled, valid)
    assert torch.equal(expected.cls, got.cls)
    assert torch.equal(expected.patches, got.patches)


def test_an_invalid_pixel_is_the_band_mean(backbone_for):
    backbone = backbone_for(name="vit_nano", depth=1)
    image = torch.rand(1, 3, 16, 16) * 255
    valid = torch.zeros(1, 16, 16, dtype=torch.bool)
    means = torch.tensor([100.0, 103.0, 106.0]).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(backbone.tokens(image, valid).cls, backbone.tokens(means).cls)


def test_another_number_of_bands_is_refused(backbone_for):
    backbone = backbone_for(name="vit_nano", depth=1)
    with pytest.raises(ContractError, match="has 4 bands but the model was built for 3"):
        backbone.tokens(torch.zeros(1, 4, 16, 16))


def test_sides_that_do_not_divide_are_refused(backbone_for):
    backbone = backbone_for(name="vit_nano", depth=1)
    with pytest.raises(ContractError, match="70 x 64 pixels does not divide into patches of 16"):
        backbone.tokens(torch.zeros(1, 3, 70, 64))


@pytest.mark.parametrize(
    "settings",
    [
        {"name": "vit_nano"},
        {"name": "vit_nano", "patch_size": 8, "layer_scale": 0},
        {"name": "vit_tiny", "depth": 2},
        SMALL,
        SMALL | {"name": "vit_small_plus_patch16_dinov3"},
        SMALL | {"name": "vit_7b_patch16_dinov3", "rope": {"base": 50.0}},
    ],
)
def test_tokens_are_those_of_timms_own_forward(settings, backbone_for, noise):
    backbone = backbone_for(4, **settings)
    image = 100 + 50 * noise(2, 4, 48, 80)
    with torch.no_grad():
        tokens = backbone.tokens(image)
        normalised = backbone.normalise(image)
        features = backbone.trunk.forward_features(normalised)
        assert torch.equal(tokens.cls, backbone.trunk(normalised))
    assert torch.equal(tokens.registers, features[:, 1:5])
    assert torch.equal(tokens.patches, features[:, 5:])


@pytest.mark.parametrize("norm", [True, False])
def test_taps_are_timms_intermediates(norm, backbone_for, noise):
    backbone = backbone_for(**SMALL)
    image = 100 + 50 * noise(2, 3, 32, 64)
    with torch.no_grad():
        maps = backbone.feature_maps(image, [0, 2, -1], norm=norm)
        taps = backbone.tap(image, [0, 2, -1], norm=norm)
        theirs = backbone.trunk.forward_intermediates(
            backbone.normalise(image),
            indices=[0, 2, 3],
            norm=norm,
            return_prefix_tokens=True,
            intermediates_only=True,
        )
    for ours, tap, (expected, prefix) in zip(maps, taps, theirs, strict=True):
        assert torch.equal(ours, expected)
        assert torch.equal(tap.cls, prefix[:, 0])
        assert torch.equal(tap.registers, prefix[:, 1:])


def test_a_layer_the_model_lacks_is_an_error(backbone_for):
    with pytest.raises(IndexError):
        backbone_for(name="vit_nano", depth=2).feature_maps(torch.zeros(1, 3, 16, 16), [2])


def from_transformers(model):
    """Their state dict under our names: an independent list of what every tensor is."""
    names = {
        "embeddings.cls_token": "trunk.cls_token",
        "embeddings.register_tokens": "trunk.reg_token",
        "embeddings.mask_token": "mask_token",
        "embeddings.patch_embeddings": "trunk.patch_embed.proj",
        "norm": "trunk.norm",
        "norm1": "norm1",
        "norm2": "norm2",
        "attention.o_proj": "attn.proj",
        "layer_scale1.lambda1": "gamma_1",
        "layer_scale2.lambda1": "gamma_2",
        "mlp.down_proj": "mlp.fc2",
        "mlp.gate_proj": "mlp.fc1_g",
        "mlp.up_proj": "mlp.fc1_x" if model.config.use_gated_mlp else "mlp.fc1",
        "attention.q_proj.bias": "attn.q_bias",
        "attention.v_proj.bias": "attn.v_bias",
    }
    theirs, ours = model.state_dict(), {}
    for key, value in theirs.items():
        prefix, inner = "", key
        if key.startswith("model.layer."):
            _, _, number, inner = key.split(".", 3)
            prefix = f"trunk.blocks.{number}."
        if (
            inner.startswith("attention.")
            and inner.endswith("_proj.weight")
            and "o_proj" not in key
        ):
            stem = f"model.layer.{number}.attention"
            ours[f"{prefix}attn.qkv.weight"] = torch.cat(
                [theirs[f"{stem}.{x}_proj.weight"] for x in "qkv"]
            )
            continue
        module, _, part = inner.rpartition(".")
        name = names[inner] if inner in names else f"{names[module]}.{part}"
        ours[prefix + name] = value[0] if name == "mask_token" else value
    return ours


@pytest.mark.parametrize("gated", [False, True])
def test_tokens_are_those_of_transformers(gated, backbone_for, contract_for, noise):
    torch.manual_seed(0)
    theirs = DINOv3ViTModel(
        DINOv3ViTConfig(
            hidden_size=64,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=256,
            num_register_tokens=4,
            image_size=64,
            use_gated_mlp=gated,
            hidden_act="silu" if gated else "gelu",
        )
    ).eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    name = "vit_small_plus_patch16_dinov3_qkvb" if gated else "vit_small_patch16_dinov3_qkvb"
    contract = contract_for(3, mean=(0.0,) * 3, std=(1.0,) * 3)
    ours = backbone_for(contract=contract, name=name, dim=64, depth=3, heads=4)
    ours.load_state_dict(from_transformers(theirs))
    image, mask = noise(2, 3, 48, 80), noise(2, 15) > 0
    with torch.no_grad():
        for m in (None, mask):
            expected = theirs(image, bool_masked_pos=m).last_hidden_state
            (got,) = ours.encode([image], masks=[m])
            tokens = torch.cat((got.cls[:, None], got.registers, got.patches), dim=1)
            torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=0)


def test_crop_sets_encode_together_as_they_do_alone(backbone_for, noise):
    backbone = backbone_for(**SMALL)
    crops = [noise(2, 3, 64, 64), noise(6, 3, 32, 32)]
    masks = [noise(2, 16) > 0.5, None]
    with torch.no_grad():
        together = backbone.encode(crops, masks=masks)
        for tokens, crop, mask in zip(together, crops, masks, strict=True):
            (alone,) = backbone.encode([crop], masks=[mask])
            torch.testing.assert_close(tokens.cls, alone.cls, atol=1e-5, rtol=0)
            torch.testing.assert_close(tokens.patches, alone.patches, atol=1e-5, rtol=0)


def test_masked_patches_cannot_be_seen(backbone_for, noise):
    backbone = backbone_for(**SMALL)
    image, other = noise(1, 3, 32, 32), noise(1, 3, 32, 32, seed=5)
    mask = torch.tensor([[True, False, False, True]])
    hidden = mask.view(1, 1, 2, 2).repeat_interleave(16, 2).repeat_interleave(16, 3)
    with torch.no_grad():
        (first,) = backbone.encode([image], masks=[mask])
        (second,) = backbone.encode([torch.where(hidden, other, image)], masks=[mask])
    assert torch.equal(first.patches, second.patches)


def test_local_crops_have_their_own_cls_norm_while_training_only(backbone_for, noise):
    backbone = backbone_for(**SMALL, local_cls_norm=True)
    crops = [noise(2, 3, 32, 32), noise(2, 3, 32, 32)]
    with torch.no_grad():
        evaluated = backbone.eval().encode(crops)
        trained = backbone.train().encode(crops)
    assert torch.equal(trained[0].cls, evaluated[0].cls)
    assert torch.equal(trained[1].patches, evaluated[1].patches)
    assert not torch.allclose(trained[1].cls, evaluated[1].cls)
    # The same tokens before the norm: both norms only differ by their weight and bias.
    plain = (trained[1].cls - backbone.local_cls_norm.bias) / backbone.local_cls_norm.weight
    expected = (evaluated[1].cls - backbone.trunk.norm.bias) / backbone.trunk.norm.weight
    torch.testing.assert_close(plain, expected, atol=1e-4, rtol=1e-4)


def draws_for(backbone, **changes):
    options = {"seed": 0, "step": 0, "first_group": 0, "groups": 2, "group": 2}
    return draw_encode(
        backbone.config, depth=backbone.depth, crops_per_set=(2, 3), **options | changes
    )


def test_augmented_positions_change_with_every_block(backbone_for, noise):
    backbone = backbone_for(**SMALL)
    crops = [noise(8, 3, 32, 32), noise(12, 3, 16, 16)]
    draws = draws_for(backbone)
    with torch.no_grad():
        first = backbone.encode(crops, draws=draws)[0].cls
        assert not torch.allclose(first, backbone.encode(crops)[0].cls)
        draws.rope[3] = draws.rope[0]
        assert not torch.equal(first, backbone.encode(crops, draws=draws)[0].cls)


def test_checkpointing_gives_the_same_gradients(backbone_for, noise):
    crops = [noise(8, 3, 32, 32), noise(12, 3, 16, 16)]
    gradients = []
    for checkpointing in (False, True):
        backbone = backbone_for(
            **SMALL, drop_path=0.3, activation_checkpointing=checkpointing
        ).train()
        outputs = backbone.encode(crops, draws=draws_for(backbone))
        sum(o.cls.square().sum() + o.patches.square().sum() for o in outputs).backward()
        gradients.append([p.grad for p in backbone.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize("masked", [True, False])
def test_every_parameter_gets_a_gradient_masked_or_not(masked, backbone_for, noise):
    backbone = backbone_for(**SMALL, local_cls_norm=True).train()
    masks = [noise(2, 4) > 0, None] if masked else [None, None]
    outputs = backbone.encode([noise(2, 3, 32, 32), noise(2, 3, 16, 16)], masks=masks)
    sum(o.cls.sum() + o.patches.sum() for o in outputs).backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None] == []


def test_ranks_encode_together_what_one_process_encodes_alone(backbone_for, noise):
    # Two ranks with two groups each against one process with four; crops are crop-major.
    backbone = backbone_for(**SMALL, drop_path=0.4).train()
    everyone = [noise(2, 8, 3, 32, 32), noise(3, 8, 3, 16, 16)]
    alone = backbone.encode(
        [c.flatten(0, 1) for c in everyone], draws=draws_for(backbone, groups=4)
    )
    for rank in range(2):
        share = [c[:, 4 * rank : 4 * rank + 4] for c in everyone]
        draws = draws_for(backbone, first_group=2 * rank, groups=2)
        got = backbone.encode([c.flatten(0, 1) for c in share], draws=draws)
        for joint, split, crops in zip(alone, got, (2, 3), strict=True):
            expected = joint.cls.view(crops, 8, -1)[:, 4 * rank : 4 * rank + 4].flatten(0, 1)
            torch.testing.assert_close(split.cls, expected, atol=1e-5, rtol=0)


def test_predicting_first_does_not_spoil_training_later(backbone_for, noise):
    backbone = backbone_for(**SMALL)
    image = noise(1, 3, 32, 32)
    with torch.inference_mode():
        backbone.tokens(image)
    backbone.encode([image])[0].cls.sum().backward()


def test_a_copy_shares_nothing_and_computes_the_same(backbone_for, noise):
    backbone = backbone_for(**SMALL)
    image = noise(1, 3, 32, 32)
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        expected = backbone.tokens(image).cls
        for parameter in backbone.parameters():
            parameter.zero_()
        assert torch.equal(twin.tokens(image).cls, expected)


def test_statistics_stay_exact_when_the_weights_become_half_precision(backbone_for, contract_for):
    contract = contract_for(3, mean=(1000.3, 2000.7, 3000.1), std=(501.3, 502.7, 503.9))
    backbone = backbone_for(contract=contract, name="vit_nano", depth=1)
    image = torch.full((1, 3, 16, 16), 1234.5)
    expected = backbone.normalise(image)
    backbone = backbone.bfloat16()
    assert torch.equal(backbone.normalise(image), expected)
    with torch.no_grad():
        assert backbone.tokens(image).cls.dtype == torch.bfloat16


def test_autocast_stays_close_to_float32(backbone_for, noise):
    backbone = backbone_for(**SMALL)
    image = noise(2, 3, 32, 32)
    with torch.no_grad():
        expected = backbone.encode([image])[0].cls
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = backbone.encode([image])[0].cls
    assert (got.float() - expected).abs().mean() < 0.05
