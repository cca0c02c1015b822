"""Tokens and weights of the reference's dense heads."""

import re

import pytest
import torch
from safetensors.torch import load_file

from geodino.models.backbone import Tokens

NAMES = {
    r"reassemble_blocks\.projects\.(\d)\.conv": r"project.\1",
    r"reassemble_blocks\.resize_layers\.(\d)": r"resize.\1",
    r"reassemble_blocks\.readout_projects\.(\d)\.0": r"readout.\1",
    r"reassemble_blocks\.batchnorm_layers\.(\d)": r"norm.\1",
    r"convs\.(\d)\.conv": r"reduce.\1",
    r"fusion_blocks\.(\d)\.project\.conv": r"fuse.\1.project",
    r"fusion_blocks\.(\d)\.res_conv_unit1\.conv1\.conv": r"fuse.\1.skip.first",
    r"fusion_blocks\.(\d)\.res_conv_unit1\.conv2\.conv": r"fuse.\1.skip.second",
    r"fusion_blocks\.(\d)\.res_conv_unit2\.conv1\.conv": r"fuse.\1.unit.first",
    r"fusion_blocks\.(\d)\.res_conv_unit2\.conv2\.conv": r"fuse.\1.unit.second",
    r"project\.conv": "after",
    r"conv_depth\.head\.0": "up",
    r"conv_depth\.head\.2": "middle",
    r"conv_depth\.head\.4": "out",
}


def ours(key):
    module, _, kind = key.rpartition(".")
    for pattern, name in NAMES.items():
        if re.fullmatch(pattern, module):
            return f"{re.sub(pattern, name, module)}.{kind}"
    raise KeyError(key)


class Golden:
    """The numbers of ``dpt_head``."""

    def __init__(self, folder):
        self.numbers = load_file(folder / "dpt_head.safetensors")

    def state(self, variant):
        prefix = f"{variant}.state."
        return {
            ours(k.removeprefix(prefix)): v for k, v in self.numbers.items() if k.startswith(prefix)
        }

    def tokens(self, size, *, dtype=torch.float32, leaves=None):
        made = []
        for i in range(4):
            patch = self.numbers[f"in.{size}.{i}.patch"].to(dtype, copy=True)
            cls = self.numbers[f"in.{size}.{i}.cls"].to(dtype, copy=True)
            if leaves is not None:
                leaves[f"{i}.patch"] = patch.requires_grad_()
                leaves[f"{i}.cls"] = cls.requires_grad_()
            patches = patch.flatten(2).transpose(1, 2)
            made.append(
                Tokens(cls=cls, registers=patches[:, :0], patches=patches, grid=patch.shape[-2:])
            )
        return made


@pytest.fixture(scope="session")
def golden_dpt(shared_golden):
    return Golden(shared_golden)
