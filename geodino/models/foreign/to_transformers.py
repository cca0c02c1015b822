"""A backbone as a folder that transformers opens, ready for the Hugging Face hub."""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from geodino import files
from geodino.errors import RecipeError
from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.card import ModelCard, readme
from geodino.models.convert import TO_TRANSFORMERS_CONVNEXT, TO_TRANSFORMERS_VIT, convert
from geodino.models.folder import CONTRACT, WEIGHTS
from geodino.models.foreign.hugging_face import LINEAGE, PREPROCESSOR


def save_transformers(
    folder: Path, *, backbone: Backbone, contract: InputContract, card: ModelCard
) -> None:
    """Write a folder that ``transformers.AutoModel.from_pretrained`` opens.

    transformers has no place for projection heads and for the norm of the local crops' CLS, which
    act in training alone: they are left out. A model without LayerScale gets one of ones.

    Raises:
        RecipeError: transformers cannot build this model.
        RunError: the folder cannot be written.
    """
    config = backbone.config
    if config.family == "convnext" and config.stride != 32:
        raise RecipeError(
            f"--to hub: {config.name} with patch_size {config.stride} has dilated stages, which "
            "transformers' DINOv3ConvNextModel cannot build; its stride is 32. Use --to timm or "
            "--to onnx."
        )
    state = _tensors(backbone)
    described = _vit(backbone) if config.family == "vit" else _convnext(backbone)
    files.write_text(folder / CONTRACT, contract.to_json() + "\n")
    lineage = [parent.model_dump(mode="json") for parent in card.lineage]
    files.write_json(folder / LINEAGE, {"license": card.effective_license, "lineage": lineage})
    files.write_json(folder / PREPROCESSOR, _preprocessing(contract, card))
    page = readme(
        card,
        contract,
        architecture=config.size.architecture,
        parameters=sum(p.numel() for p in backbone.trunk.parameters()),
        stride=backbone.patch_size,
        library="transformers",
    )
    files.write_text(folder / "README.md", page)
    files.write_with(folder / WEIGHTS, lambda path: save_file(state, path, {"format": "pt"}))
    described |= {
        "num_channels": backbone.bands,
        "image_size": card.image_size,
        "dtype": "float32",
        "drop_path_rate": 0.0,
        "hidden_act": described.get("hidden_act", "gelu"),
    }
    files.write_json(folder / "config.json", described)


def _tensors(backbone: Backbone) -> dict[str, Tensor]:
    vit = backbone.config.family == "vit"
    state = convert(
        backbone.state_dict(),
        TO_TRANSFORMERS_VIT if vit else TO_TRANSFORMERS_CONVNEXT,
        source=backbone.config.name,
    )
    if vit:
        state["embeddings.mask_token"] = state["embeddings.mask_token"][None]
        for i in range(backbone.depth if backbone.config.initial_layer_scale is None else 0):
            for half in (1, 2):
                state[f"layer.{i}.layer_scale{half}.lambda1"] = torch.ones(backbone.dim)
    else:
        for key, value in list(state.items()):
            # 1 x 1 convolutions there, linear maps here.
            state[key] = value.flatten(1) if ".pointwise_conv" in key and value.ndim == 4 else value
            if key.endswith("depthwise_conv.bias"):
                state.setdefault(
                    key.replace("depthwise_conv.bias", "gamma"), torch.ones_like(value)
                )
    return {k: v.detach().cpu().clone().contiguous() for k, v in state.items()}


def _vit(backbone: Backbone) -> dict[str, Any]:
    config, block = backbone.config, backbone.trunk.blocks[0]
    gated = hasattr(block.mlp, "fc1_g")
    biased = block.attn.q_bias is not None
    return {
        "architectures": ["DINOv3ViTModel"],
        "model_type": "dinov3_vit",
        "hidden_size": backbone.dim,
        "intermediate_size": int(block.mlp.fc2.in_features),
        "num_hidden_layers": backbone.depth,
        "num_attention_heads": int(block.attn.num_heads),
        "num_register_tokens": int(backbone.trunk.reg_token.shape[1]),
        "patch_size": backbone.patch_size,
        "use_gated_mlp": gated,
        "hidden_act": "silu" if gated else "gelu",
        "layer_norm_eps": 1e-5,
        "layerscale_value": config.initial_layer_scale or 1.0,
        "rope_theta": config.rope.base,
        "query_bias": biased,
        "key_bias": False,
        "value_bias": biased,
        "proj_bias": True,
        "mlp_bias": True,
        "pos_embed_shift": config.rope.shift or None,
        "pos_embed_jitter": config.rope.jitter if config.rope.jitter > 1 else None,
        "pos_embed_rescale": config.rope.rescale if config.rope.rescale > 1 else None,
    }


def _convnext(backbone: Backbone) -> dict[str, Any]:
    stages = backbone.trunk.stages
    return {
        "architectures": ["DINOv3ConvNextModel"],
        "model_type": "dinov3_convnext",
        "hidden_sizes": [int(stage.blocks[0].conv_dw.out_channels) for stage in stages],
        "depths": [len(stage.blocks) for stage in stages],
        "layer_norm_eps": 1e-6,
        "layer_scale_init_value": backbone.config.initial_layer_scale or 1.0,
    }


def _preprocessing(contract: InputContract, card: ModelCard) -> dict[str, Any]:
    """Images stay as large as they are; bytes are brought to 0..1, other types stay as stored."""
    is_bytes = contract.dtype == "uint8"
    scale = 255.0 if is_bytes else 1.0
    return {
        "image_processor_type": "DINOv3ViTImageProcessor",
        "do_resize": False,
        "size": {"height": card.image_size, "width": card.image_size},
        "do_rescale": is_bytes,
        "rescale_factor": 1 / scale,
        "do_normalize": True,
        "image_mean": [v / scale for v in contract.mean],
        "image_std": [v / scale for v in contract.std],
    }
