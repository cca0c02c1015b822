"""Small models of transformers' and of the release's layout, written to files."""

import json

import pytest
import torch
import torchvision  # noqa: F401  (loaded before transformers asks whether it is there)
from transformers import (
    DINOv3ConvNextConfig,
    DINOv3ConvNextModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)
from transformers.utils import logging


@pytest.fixture(autouse=True)
def no_bars_of_transformers():
    logging.disable_progress_bar()


def shaken(model, seed=0):
    """Numbers that matter in every parameter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def their_vit(*, gated=False, biased=True, bands=3, **settings):
    torch.manual_seed(0)
    config = DINOv3ViTConfig(
        **{
            "hidden_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "num_register_tokens": 4,
            "num_channels": bands,
            "use_gated_mlp": gated,
            "hidden_act": "silu" if gated else "gelu",
            "query_bias": biased,
            "value_bias": biased,
            **settings,
        }
    )
    return shaken(DINOv3ViTModel(config))


def their_convnext(*, bands=3):
    torch.manual_seed(0)
    config = DINOv3ConvNextConfig(
        hidden_sizes=[40, 80, 160, 320], depths=[2, 2, 6, 2], num_channels=bands
    )
    return shaken(DINOv3ConvNextModel(config))


def saved(model, folder, *, mean=None, **options):
    """A folder as the hub has it; with the statistics of its preprocessing if any are given."""
    model.save_pretrained(folder, **options)
    if mean is not None:
        asked = {"image_mean": mean, "image_std": [0.5] * len(mean), "rescale_factor": 1 / 255}
        (folder / "preprocessor_config.json").write_text(json.dumps(asked))
    return folder


def as_reference(backbone, *, key_bias=None):
    """Our ViT's tensors under the release's names, by hand: the inverse of the rules."""
    state, out = backbone.state_dict(), {}
    renamed = {
        "gamma_1": "ls1.gamma", "gamma_2": "ls2.gamma", "mlp.fc1_g.weight": "mlp.w1.weight",
        "mlp.fc1_g.bias": "mlp.w1.bias", "mlp.fc1_x.weight": "mlp.w2.weight",
        "mlp.fc1_x.bias": "mlp.w2.bias",
    }  # fmt: skip
    is_gated = "trunk.blocks.0.mlp.fc1_g.weight" in state
    for key, value in state.items():
        name = key.removeprefix("trunk.").replace("reg_token", "storage_tokens")
        if name.endswith(("q_bias", "v_bias")):
            continue
        for ours, theirs in renamed.items():
            name = name.replace(ours, theirs)
        out[name.replace("mlp.fc2", "mlp.w3") if is_gated else name] = value
    dim = backbone.dim
    for i in range(backbone.depth):
        block = f"trunk.blocks.{i}.attn"
        query = state.get(f"{block}.q_bias", torch.zeros(dim))
        value = state.get(f"{block}.v_bias", torch.zeros(dim))
        key = torch.zeros(dim) if key_bias is None else key_bias
        out[f"blocks.{i}.attn.qkv.bias"] = torch.cat((query, key, value))
        if key_bias is None:
            masked = torch.cat((torch.ones(dim), torch.zeros(dim), torch.ones(dim)))
            out[f"blocks.{i}.attn.qkv.bias_mask"] = masked
            # What a mask hides may be anything.
            out[f"blocks.{i}.attn.qkv.bias"][dim : 2 * dim] = float("nan")
    quarter = dim // int(backbone.trunk.blocks[0].attn.num_heads) // 4
    periods = 100.0 ** (torch.arange(quarter) / quarter)
    out["rope_embed.periods"] = periods.bfloat16().float()
    return {k: v.clone() for k, v in out.items()}


@pytest.fixture
def vit():
    return their_vit


@pytest.fixture
def convnext():
    return their_convnext


@pytest.fixture
def save_hub():
    return saved


@pytest.fixture
def reference_state():
    return as_reference
