"""Small contracts and backbones with weights that matter in every parameter."""

import pytest
import torch

from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.models.build import build_backbone
from geodino.models.sizes import ModelConfig


def make_contract(bands=3, *, dtype="uint8", mean=None, std=None):
    return InputContract(
        bands=tuple(Band(name=f"band_{i + 1}") for i in range(bands)),
        dtype=dtype,
        mean=mean or tuple(100.0 + 3 * i for i in range(bands)),
        std=std or tuple(40.0 + i for i in range(bands)),
        low=(0.0,) * bands,
        high=(255.0,) * bands,
    )


def make_backbone(bands=3, *, contract=None, **settings):
    """A backbone whose biases, norms and LayerScale are far from their initial 0, 1 and 1e-5."""
    backbone = build_backbone(
        ModelConfig(**settings),
        contract or make_contract(bands),
        generator=torch.Generator().manual_seed(0),
    )
    return stirred(backbone).eval()


def stirred(module, seed=1):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            spread = 0.3 if parameter.ndim == 1 else 0.05
            parameter.add_(torch.empty(parameter.shape).normal_(0, spread, generator=generator))
    return module


@pytest.fixture
def contract_for():
    return make_contract


@pytest.fixture
def backbone_for():
    return make_backbone


@pytest.fixture
def noise():
    def draw(*shape, seed=2):
        return torch.randn(shape, generator=torch.Generator().manual_seed(seed))

    return draw
