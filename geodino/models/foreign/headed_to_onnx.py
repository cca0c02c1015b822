"""A backbone with a head as one ONNX graph: stored values of an image in, what it says of it out."""

import json
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from geodino.geo.contract import InputContract
from geodino.metrics.recalibration import HeightCurve
from geodino.models.backbone import Tokens
from geodino.models.canopy import UNIT, CanopyModel
from geodino.models.card import ModelCard
from geodino.models.classification import ClassificationModel
from geodino.models.decoders.bins import expected_height
from geodino.models.foreign.to_onnx import metadata, require, write_program
from geodino.models.headed import HeadedModel
from geodino.models.height_curve import CurveModule
from geodino.models.segmentation import SegmentationModel

_INVALID = "fill with the band's mean, and leave out what is said of them"


@dataclass(frozen=True, kw_only=True, slots=True)
class Graph:
    """What a graph computes, and what a program that opens it should know."""

    module: nn.Module
    """Takes stored values ``[1 b h w]`` as float32; gives one tensor, in a tuple."""

    output: str
    """Name of that."""

    sides: tuple[int, int]
    """Rows and columns of the image, pixels."""

    facts: Mapping[str, str]


class _Mapped(nn.Module):
    """A dense head on an image of whole ``multiple``, and what becomes of its logits."""

    def __init__(
        self, model: CanopyModel | SegmentationModel, after: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.model = model
        self.layers = [tap.layer for tap in model.taps]
        self.after = after

    def forward(self, image: Tensor) -> tuple[Tensor]:
        tokens: list[Tokens] = self.model.backbone.tap(image, self.layers, norm=True)
        return (self.after(self.model.head(tokens)),)


class _Told(nn.Module):
    """The probabilities of the classes of an image of its size."""

    def __init__(self, model: ClassificationModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: Tensor) -> tuple[Tensor]:
        return (self.model.probabilities(image),)


def canopy_graph(model: CanopyModel, *, chip: int, curve: HeightCurve | None = None) -> Graph:
    """Return the graph of heights.

    Its output ``height_m [1, 1 + quantiles, chip, chip]`` holds metres: the height, then each
    quantile of the model. Blend neighbouring chips over their overlap.

    Args:
        model: on the CPU.
        chip: side of a chip, pixels; rounded up to what the model needs.
        curve: what becomes of its heights and quantiles; None leaves them alone.
    """
    bins = model.config.bins
    groups = 1 + len(model.config.quantiles)
    corrected = nn.Identity() if curve is None else CurveModule(curve)

    def heights(logits: Tensor) -> Tensor:
        by_group = logits.reshape(-1, bins.count, *logits.shape[-2:])
        maps = expected_height(by_group, model.bins_m, weighting=bins.weighting)
        said: Tensor = corrected(maps.reshape(-1, groups, *maps.shape[-2:]))
        return said

    side = -(-chip // model.multiple) * model.multiple
    return Graph(
        module=_Mapped(model, heights),
        output="height_m",
        sides=(side, side),
        facts={
            "unit": UNIT,
            "quantiles": json.dumps(list(model.config.quantiles)),
            "chip": str(side),
            "invalid_pixels": _INVALID,
        },
    )


def segmentation_graph(model: SegmentationModel, *, chip: int, classes: tuple[str, ...]) -> Graph:
    """Return the graph of classes of pixels.

    Its output ``probabilities [1, classes, chip, chip]`` sums to 1 over the classes. Blend those of
    neighbouring chips over their overlap, and then take the largest.

    Args:
        model: on the CPU.
        chip: side of a chip, pixels; rounded up to what the model needs.
        classes: their names.
    """
    side = -(-chip // model.multiple) * model.multiple
    return Graph(
        module=_Mapped(model, lambda logits: logits.softmax(dim=1)),
        output="probabilities",
        sides=(side, side),
        facts={
            "classes": json.dumps(list(classes)),
            "chip": str(side),
            "invalid_pixels": _INVALID,
        },
    )


def classification_graph(
    model: ClassificationModel, *, sides: tuple[int, int], classes: tuple[str, ...]
) -> Graph:
    """Return the graph of classes of whole images.

    Its output ``probabilities [1, classes]`` sums to 1, or is of each class by itself where an image
    may have several. The image comes resized.

    Args:
        model: on the CPU.
        sides: rows and columns the model sees, pixels.
        classes: their names.
    """
    return Graph(
        module=_Told(model),
        output="probabilities",
        sides=sides,
        facts={
            "classes": json.dumps(list(classes)),
            "kind": model.kind,
            "invalid_pixels": _INVALID,
        },
    )


def save_headed_onnx(
    path: Path, graph: Graph, *, model: HeadedModel, contract: InputContract, card: ModelCard
) -> dict[str, float]:
    """Write a model with its head as an ONNX file for images of one size, and compare it with torch.

    The graph's input ``image [1, bands, rows, columns]`` holds stored values as float32;
    normalisation and rotary positions are inside. As in the graph of a backbone there is no mask:
    fill invalid pixels with the mean of their band, which the metadata hold. One image a call.

    Args:
        path: the file, replaced if it is there.
        graph: what is computed.
        model: on the CPU.
        contract: of its input.
        card: what is said about it.

    Returns:
        Largest difference to torch, by size.

    Raises:
        RunError: a library is missing, the file cannot be written, or it computes something else.
    """
    require()
    model.eval()
    module = graph.module.eval()
    example = torch.zeros(1, model.backbone.bands, *graph.sides)
    with torch.no_grad(), warnings.catch_warnings():
        # torch's exporter warns about its own use of torch.
        warnings.simplefilter("ignore", FutureWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        program: Any = torch.onnx.export(
            module, (example,), dynamo=True, input_names=["image"], output_names=[graph.output],
            verbose=False,
        )  # fmt: skip
    if program is None:
        raise TypeError("torch's exporter gave no program")
    facts = {**metadata(model.backbone, contract, card), **graph.facts}
    program.model.metadata_props.update(facts)
    return write_program(
        path, program, module=module, backbone=model.backbone, sizes=[(1, *graph.sides)]
    )
