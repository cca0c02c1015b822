"""A canopy model as one ONNX graph: stored values of a chip in, metres above the ground out."""

import json
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from geodino.geo.contract import InputContract
from geodino.models.canopy import UNIT, CanopyModel
from geodino.models.card import ModelCard
from geodino.models.decoders.bins import expected_height
from geodino.models.foreign.to_onnx import metadata, require, write_program


class _Heights(nn.Module):
    """The height, and after it each quantile, of an image of whole ``multiple``."""

    def __init__(self, model: CanopyModel) -> None:
        super().__init__()
        self.model = model
        self.layers = [tap.layer for tap in model.taps]

    def forward(self, image: Tensor) -> tuple[Tensor]:
        model = self.model
        bins = model.config.bins
        tokens = model.backbone.tap(image, self.layers, norm=True)
        logits = model.head(tokens)
        groups = 1 + len(model.config.quantiles)
        by_group = logits.reshape(-1, bins.count, *logits.shape[-2:])
        maps = expected_height(by_group, model.bins_m, weighting=bins.weighting)
        return (maps.reshape(-1, groups, *maps.shape[-2:]),)


def save_canopy_onnx(
    path: Path, *, model: CanopyModel, contract: InputContract, card: ModelCard, chip: int
) -> dict[str, float]:
    """Write a canopy model as an ONNX file for chips of one size and compare it with torch.

    The graph's input ``image [1, bands, chip, chip]`` holds stored values as float32;
    normalisation and rotary positions are inside. Its output ``height_m [1, 1 + quantiles, chip,
    chip]`` holds metres: the height, then each quantile of the model. As in the graph of a backbone
    there is no mask: fill invalid pixels with the mean of their band, which the metadata hold, and
    leave out their heights. One chip a call: blend neighbouring chips over their overlap.

    Args:
        path: the file, replaced if it is there.
        model: on the CPU.
        contract: of its input.
        card: what is said about it.
        chip: side of a chip, pixels; rounded up to what the model needs.

    Returns:
        Largest difference to torch, by size.

    Raises:
        RunError: a library is missing, the file cannot be written, or it computes something else.
    """
    require()
    side = -(-chip // model.multiple) * model.multiple
    module = _Heights(model.eval()).eval()
    example = torch.zeros(1, model.backbone.bands, side, side)
    with torch.no_grad(), warnings.catch_warnings():
        # torch's exporter warns about its own use of torch.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        program = torch.onnx.export(
            module, (example,), dynamo=True, input_names=["image"], output_names=["height_m"],
            verbose=False,
        )  # fmt: skip
    if program is None:
        raise TypeError("torch's exporter gave no program")
    facts = {
        "unit": UNIT,
        "quantiles": json.dumps(list(model.config.quantiles)),
        "chip": str(side),
        "invalid_pixels": "fill with the band's mean, and leave out their heights",
    }
    program.model.metadata_props.update({**metadata(model.backbone, contract, card), **facts})
    return write_program(
        path, program, module=module, backbone=model.backbone, sizes=[(1, side, side)]
    )
