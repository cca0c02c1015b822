import json

import pytest
import torch
from torch import nn

from geodino.models.param_groups import multipliers, param_groups

CASES = {
    "groups_vit_depth4_decay0.9_patch0.2": {
        "depth": 4,
        "layer_decay": 0.9,
        "patch_embed_lr": 0.2,
    },
    "groups_dino_head_decay0.9_headwd0.5": {"depth": None},
}


@pytest.mark.parametrize("case", CASES)
def test_multipliers_agree_with_the_reference(shared_golden, case):
    golden = json.loads((shared_golden / "schedules_param_groups.json").read_text())[case]
    for name, (lr, decay, last) in golden.items():
        got = multipliers(name, **CASES[case])
        assert (got.lr, got.weight_decay, got.last_layer) == (pytest.approx(lr), decay, last), name


def test_by_hand_a_block_learns_slower_the_earlier_it_is():
    # Depth 2: ids are 0 (patch embedding), 1, 2 (blocks), 3 (norm); factor 0.5 ** (3 - id).
    rates = [
        multipliers(name, depth=2, layer_decay=0.5, patch_embed_lr=0.2).lr
        for name in ("trunk.patch_embed.proj.weight", "trunk.blocks.0.attn.qkv.weight",
                     "trunk.blocks.1.mlp.fc1.weight", "trunk.norm.weight")
    ]  # fmt: skip
    assert rates == pytest.approx([0.125 * 0.2, 0.25, 0.5, 1.0])


@pytest.mark.parametrize(
    ("name", "decays"),
    [
        ("trunk.blocks.0.attn.qkv.weight", True),
        ("trunk.blocks.0.attn.q_bias", False),
        ("trunk.blocks.0.gamma_1", False),
        ("trunk.blocks.0.norm1.weight", False),
        ("trunk.cls_token", True),  # learned tokens decay, as in the release
        ("trunk.reg_token", True),
        ("mask_token", True),
        ("local_cls_norm.weight", False),
    ],
)
def test_biases_norms_and_layer_scales_do_not_decay(name, decays):
    assert (multipliers(name, depth=4).weight_decay == 1.0) is decays


def test_every_trainable_parameter_is_in_exactly_one_group():
    module = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Linear(4, 2))
    module[2].bias.requires_grad_(requires_grad=False)
    groups = param_groups([(module, None)], layer_decay=1.0, patch_embed_lr=1.0)
    gathered = [p for group in groups for p in group["params"]]
    assert len(gathered) == 5
    assert {id(p) for p in gathered} == {id(p) for p in module.parameters() if p.requires_grad}
    assert all(isinstance(p, torch.nn.Parameter) for p in gathered)
