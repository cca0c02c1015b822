"""A small backbone with weights that matter."""

import pytest
import torch

from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.infer.encode import Encoder
from geodino.models.build import build_backbone
from geodino.models.sizes import ModelConfig


@pytest.fixture(scope="session")
def backbone():
    contract = InputContract(
        bands=(Band(name="a"), Band(name="b")),
        dtype="float32",
        mean=(100.0, 90.0),
        std=(40.0, 50.0),
        low=(0.0, 0.0),
        high=(255.0, 255.0),
    )
    config = ModelConfig(name="vit_nano", patch_size=4, dim=16, depth=2, heads=2, layer_scale=1.0)
    generator = torch.Generator().manual_seed(0)
    built = build_backbone(config, contract, generator=generator).eval()
    with torch.no_grad():
        for parameter in built.parameters():
            parameter.add_(torch.empty_like(parameter).normal_(0, 0.2, generator=generator))
    return built


@pytest.fixture
def encoder_of(backbone):
    def make(batch=4, scale=None):
        return Encoder(backbone, device=torch.device("cpu"), batch=batch, scale=scale)

    return make
