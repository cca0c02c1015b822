import math

import pytest
import torch

from geodino.models.build import assemble, build_backbone, materialise
from geodino.models.init import initialise
from geodino.models.sizes import ModelConfig


def fresh(contract, seed=0, **settings):
    return build_backbone(
        ModelConfig(**settings), contract, generator=torch.Generator().manual_seed(seed)
    )


@pytest.fixture
def backbone(contract_for):
    return fresh(contract_for(4), name="vit_tiny_patch16_dinov3_qkvb", local_cls_norm=True)


def test_linear_weights_are_normal_with_002_at_every_depth(backbone):
    for number in (0, 11):
        block = backbone.trunk.blocks[number]
        for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            assert linear.weight.std().item() == pytest.approx(0.02, rel=0.02)
            assert linear.weight.mean().item() == pytest.approx(0.0, abs=4e-4)


def test_biases_and_the_mask_token_start_at_zero(backbone):
    zeros = [
        name
        for name, p in backbone.named_parameters()
        if name.endswith("bias") and "patch_embed" not in name
    ]
    assert any("q_bias" in name for name in zeros)
    for name in (*zeros, "mask_token"):
        assert torch.count_nonzero(backbone.get_parameter(name)) == 0
    assert torch.count_nonzero(backbone.trunk.blocks[0].attn.k_bias) == 0


def test_the_patch_embedding_is_uniform_within_one_over_the_root_of_its_inputs(backbone):
    bound = 1 / math.sqrt(4 * 16 * 16)
    for parameter in (backbone.trunk.patch_embed.proj.weight, backbone.trunk.patch_embed.proj.bias):
        assert parameter.abs().max().item() <= bound
        assert parameter.abs().max().item() > 0.95 * bound
        assert parameter.std().item() == pytest.approx(bound / math.sqrt(3), rel=0.1)


def test_learned_tokens_are_normal_and_norms_are_the_identity(backbone):
    tokens = torch.cat((backbone.trunk.cls_token, backbone.trunk.reg_token), dim=1)
    assert tokens.std().item() == pytest.approx(0.02, rel=0.1)
    for norm in (backbone.trunk.norm, backbone.trunk.blocks[3].norm1, backbone.local_cls_norm):
        assert torch.equal(norm.weight, torch.ones(192))
        assert norm.eps == 1e-5


@pytest.mark.parametrize(("asked", "value"), [(None, 1e-5), (0.1, 0.1)])
def test_layer_scale_starts_at_the_papers_value_or_the_one_asked(contract_for, asked, value):
    backbone = fresh(contract_for(1), name="vit_nano", depth=1, layer_scale=asked)
    assert backbone.trunk.blocks[0].gamma_2.unique().tolist() == pytest.approx([value])


def test_a_convnext_starts_from_002_and_1e_minus_6(contract_for):
    backbone = fresh(contract_for(3), name="convnext_atto")
    block = backbone.trunk.stages[3].blocks[1]
    assert block.mlp.fc1.weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert backbone.trunk.stem[0].weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert block.gamma.unique().tolist() == pytest.approx([1e-6])
    assert torch.count_nonzero(block.mlp.fc1.bias) == 0


@pytest.mark.parametrize("name", ["vit_nano", "convnext_atto"])
def test_unit_weights_keep_the_scale_of_what_passes_every_linear_map_and_convolution(
    name, contract_for
):
    backbone = fresh(contract_for(3), name=name, init="unit")
    weights = [p for n, p in backbone.named_parameters() if p.ndim > 1 and "token" not in n]
    large = [w for w in weights if w.numel() > 10_000]
    assert len(large) > 10
    for weight in large:
        wanted = weight[0].numel() ** -0.5
        assert weight.std().item() == pytest.approx(wanted, rel=0.03)


@pytest.mark.parametrize("name", ["vit_nano", "convnext_atto"])
def test_weights_depend_on_the_generator_alone(name, contract_for):
    torch.manual_seed(1)
    first = fresh(contract_for(), name=name).state_dict()
    state = torch.get_rng_state()
    torch.manual_seed(2)
    second = fresh(contract_for(), name=name).state_dict()
    other = fresh(contract_for(), name=name, seed=1).state_dict()
    assert all(torch.equal(first[k], second[k]) for k in first)
    key = "trunk.patch_embed.proj.weight" if name == "vit_nano" else "trunk.stem.0.weight"
    assert not torch.equal(first[key], other[key])
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())


def test_no_memory_is_left_as_it_was_found(contract_for):
    for name in ("vit_nano", "vit_small_plus_patch16_dinov3_qkvb", "convnext_atto"):
        config = ModelConfig(name=name, local_cls_norm=name.startswith("vit"))
        contract = contract_for(2)
        backbone = assemble(config, mean=contract.mean, std=contract.std)
        materialise(backbone)
        tensors = [*backbone.parameters(), *backbone.buffers()]
        with torch.no_grad():
            for tensor in tensors:
                tensor.fill_(float("nan"))
        initialise(backbone, generator=torch.Generator().manual_seed(0))
        assert all(torch.isfinite(t).all() for t in [*backbone.parameters(), *backbone.buffers()])
        assert backbone.mean.flatten().tolist() == [100.0, 103.0]


def test_float64_as_the_default_type_changes_no_weight(contract_for):
    expected = fresh(contract_for(), name="vit_nano", depth=1).state_dict()
    torch.set_default_dtype(torch.float64)
    try:
        found = fresh(contract_for(), name="vit_nano", depth=1).state_dict()
    finally:
        torch.set_default_dtype(torch.float32)
    for name in expected:
        assert torch.equal(expected[name].float(), found[name].float()), name
