"""A small canopy model with weights that matter, as a model folder."""

from pathlib import Path

import numpy as np
import torch
from tests_support import textured

from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.models.build import build_backbone
from geodino.models.canopy import CanopyConfig, build_canopy
from geodino.models.canopy_folder import save_canopy
from geodino.models.decoders.linear import LinearHeadConfig
from geodino.models.sizes import ModelConfig
from geodino.tasks.canopy.applicability import fit_applicability

RGB = InputContract(
    bands=tuple(Band(name=name, common_name=name) for name in ("red", "green", "blue")),
    dtype="uint8",
    mean=(110.0, 110.0, 110.0),
    std=(60.0, 60.0, 60.0),
    low=(0.0, 0.0, 0.0),
    high=(255.0, 255.0, 255.0),
    gsd_m=(0.5, 0.7),
)


def save_small_canopy(folder: Path, *, extra=None, ground=False) -> Path:
    """Write it; with ``ground`` it keeps features of something to have been trained on."""
    generator = torch.Generator().manual_seed(0)
    config = ModelConfig(name="vit_nano", patch_size=8, dim=32, depth=2, heads=2, layer_scale=1.0)
    backbone = build_backbone(config, RGB, generator=generator).eval()
    model = build_canopy(backbone, CanopyConfig(head=LinearHeadConfig()), generator=generator)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.1, generator=generator))
    made = {"chip": 64, "overlap": 16} if extra is None else extra
    save_canopy(folder, model.eval(), contract=RGB, card={"name": "small"}, extra=made)
    if ground:
        tiles = torch.from_numpy(np.stack([textured(seed) for seed in (0, 0, 7)])).float()
        tokens = model.backbone.tokens(tiles).patches.flatten(0, 1)
        kept = fit_applicability(tokens[:288], tokens[288:], tokens=64, seed=0)
        kept.save(folder)
    return folder
