"""A model with a head in other forms: its backbone for timm, all of it for a hub, a graph for ONNX."""

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from geodino import files
from geodino.errors import CheckpointError, RecipeError, RunError
from geodino.models.canopy_folder import FILES as CANOPY
from geodino.models.canopy_folder import LoadedCanopy, load_canopy
from geodino.models.card import ModelCard
from geodino.models.classification_folder import FILES as CLASSIFICATION
from geodino.models.classification_folder import LoadedClassification, load_classification
from geodino.models.detection_folder import FILES as DETECTION
from geodino.models.detection_folder import LoadedDetection, load_detection
from geodino.models.folder import CONFIG, CONTRACT, HEADS, ITEM, README, WEIGHTS, save_model
from geodino.models.foreign.headed_to_onnx import (
    Graph,
    canopy_graph,
    classification_graph,
    save_headed_onnx,
    segmentation_graph,
)
from geodino.models.head_folder import HeadFiles, LoadedHead
from geodino.models.segmentation_folder import FILES as SEGMENTATION
from geodino.models.segmentation_folder import LoadedSegmentation, load_segmentation
from geodino.runs.predict.heights import curve_of
from geodino.runs.record import RunFolder
from geodino.tasks.canopy.applicability import APPLICABILITY

_BACKBONE = (WEIGHTS, HEADS, CONFIG, CONTRACT, ITEM, README)
"""Files of every model, in the order in which they are copied; those of the head follow."""

_CHIP = 256
"""Side of the chips of a graph, pixels, where the model does not say what it was made with."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Delivered:
    """How models with one kind of head are handed on."""

    files: HeadFiles
    load: Callable[[Path], LoadedHead[Any, Any]]
    """Reads a model folder."""

    about: Callable[[Any], str]
    """The section of the card on the head, Markdown."""

    graph: Callable[[Any], Graph]
    """What an ONNX file of it computes.

    Raises:
        RecipeError: a graph has no place for what this one does.
    """

    beside: tuple[str, ...] = ()
    """Files that may lie beside the head."""


def delivered_of(folder: Path | str) -> Delivered | None:
    """Return how the model in a folder is handed on; None where it has no head."""
    return next((row for row in DELIVERED if row.files.are_in(folder)), None)


def export_headed(model: Path, *, to: str, out: Path | None = None) -> dict[str, Any]:
    """Write the model of a finished run of fine-tuning, or of a model folder, in another form.

    Args:
        model: the run or the model folder.
        to: ``timm``: the backbone alone, as timm opens it. ``hub``: backbone, head and card, ready to
            be uploaded. ``onnx``: backbone and head as one graph.
        out: where it goes; None is a place in the run.

    Raises:
        RunError: there is no ``out`` for what is no run, or a library is missing.
        RecipeError: the form has no place for the model, or ``out`` is the model itself.
        CheckpointError: there is no head, or a file is missing or damaged.
    """
    run = RunFolder(model)
    is_run = run.recipe.is_file()
    folder = run.model if is_run else model
    row = delivered_of(folder)
    if row is None:
        raise CheckpointError(f"{folder} holds a backbone and no head that geodino knows.")
    if out is None and not is_run:
        raise RunError(f"{model} is no run folder: say with --out where the export goes.")
    loaded = row.load(folder)
    places = {"timm": model / "timm", "hub": model / "hub", "onnx": model / "model.onnx"}
    target = places[to] if out is None else out
    if target.resolve() == folder.resolve():
        raise RecipeError(f"--out {target} is the model itself: name another folder.")
    name = f"{model.resolve().name}-{row.files.name}" if is_run else folder.resolve().name
    facts: dict[str, Any] = {}
    if to == "timm":
        _save_backbone(loaded, target, card=_card(loaded, f"{name}-backbone", row))
    elif to == "hub":
        _copy(folder, target, loaded, row)
    else:
        graph = row.graph(loaded)
        differences = save_headed_onnx(
            target, graph, model=loaded.model, contract=loaded.contract,
            card=_card(loaded, name, row),
        )  # fmt: skip
        facts = {"image": list(graph.sides), "difference_to_torch": differences}
    return {"model": str(target), **facts}


def _card(loaded: LoadedHead[Any, Any], name: str, row: Delivered) -> ModelCard:
    return ModelCard(
        name=name,
        description=f"{loaded.model.backbone.config.name} of the {row.files.bare} {name}.",
        license=loaded.license,
        lineage=loaded.lineage,
        image_size=int(loaded.extra.get("chip", _CHIP)),
    )


def _save_backbone(loaded: LoadedHead[Any, Any], target: Path, *, card: ModelCard) -> None:
    backbone = loaded.model.backbone
    save_model(
        target, backbone=backbone, heads=None, contract=loaded.contract, config=backbone.config,
        head_configs=None, card=card,
    )  # fmt: skip


def _copy(folder: Path, target: Path, loaded: LoadedHead[Any, Any], row: Delivered) -> None:
    """Copy the model's files, and say in the card what the head does."""
    names = [*_BACKBONE, row.files.weights, row.files.described]
    names += [name for name in row.beside if (folder / name).is_file()]
    for name in names:
        if name == README:
            page = (folder / name).read_text(encoding="utf-8")
            files.write_text(target / name, f"{page}\n{row.about(loaded)}")
        else:
            files.write_with(target / name, partial(shutil.copyfile, folder / name))


def _about_canopy(loaded: LoadedCanopy) -> str:
    model, extra = loaded.model, loaded.extra
    lines = [
        "## Canopy heights",
        (
            f"`canopy.safetensors` is a {model.config.head.kind} head: metres above the ground for "
            f"every pixel, {model.config.bins.count} bins up to {model.config.bins.ceiling_m:g} m. "
            "`canopy.json` describes it."
        ),
        "```\ngeodino predict IMAGE.tif --model hub:OWNER/NAME --out heights.tif\n```",
    ]
    results, intervals = extra.get("results"), extra.get("intervals")
    if results and results.get("mae_m") is not None:
        lines.append(f"Mean absolute error on {results['on']} ground: {results['mae_m']:.2f} m.")
    lines.append(
        f"Intervals hold {intervals['coverage']:.0%} of the pixels of a new site, on average."
        if intervals
        else "There are no intervals."
    )
    return "\n\n".join(lines) + "\n"


def _about_segmentation(loaded: LoadedSegmentation) -> str:
    names = ", ".join(one.name for one in loaded.classes)
    lines = [
        "## Classes of pixels",
        (
            f"`segmentation.safetensors` is a {loaded.model.config.head.kind} head: one of "
            f"{len(loaded.classes)} classes for every pixel ({names}). `segmentation.json` describes it."
        ),
    ]
    results = loaded.extra.get("results")
    if results and results.get("miou") is not None:
        lines.append(f"Mean IoU on the {results['on']} part: {results['miou']:.3f}.")
    return "\n\n".join(lines) + "\n"


def _about_classification(loaded: LoadedClassification) -> str:
    many = "any number" if loaded.model.kind == "multilabel" else "one"
    lines = [
        "## Classes of images",
        (
            f"`classification.safetensors` is a linear head on {loaded.model.config.features}: {many} of "
            f"{len(loaded.classes)} classes for a whole image ({', '.join(loaded.classes)}). "
            "`classification.json` describes it."
        ),
    ]
    results = loaded.extra.get("results")
    if results:
        metric = str(results["metric"]).replace("_", " ")
        said = ", ".join(f"{name} {value:.3f}" for name, value in results["scores"].items())
        lines.append(f"On {results['images']} test images, {metric}: {said}.")
    return "\n\n".join(lines) + "\n"


def _about_detection(loaded: LoadedDetection) -> str:
    lines = [
        "## Boxes around objects",
        (
            f"`detection.safetensors` is the head of a Faster R-CNN: boxes of {len(loaded.classes)} "
            f"classes ({', '.join(loaded.classes)}). `detection.json` describes it."
        ),
    ]
    results = loaded.extra.get("results")
    if results and results.get("ap50") is not None:
        lines.append(f"AP50 on the {results['on']} part: {results['ap50']:.3f}.")
    return "\n\n".join(lines) + "\n"


def _graph_of_canopy(loaded: LoadedCanopy) -> Graph:
    return canopy_graph(
        loaded.model,
        chip=int(loaded.extra.get("chip", _CHIP)),
        curve=curve_of(loaded, "the model"),
    )


def _graph_of_segmentation(loaded: LoadedSegmentation) -> Graph:
    return segmentation_graph(
        loaded.model,
        chip=int(loaded.extra.get("chip", _CHIP)),
        classes=tuple(one.name for one in loaded.classes),
    )


def _graph_of_classification(loaded: LoadedClassification) -> Graph:
    rows, columns = loaded.extra["seen"]
    return classification_graph(
        loaded.model, sides=(int(rows), int(columns)), classes=loaded.classes
    )


def _graph_of_detection(loaded: LoadedDetection) -> Graph:
    raise RecipeError(
        "The model finds any number of boxes, and a graph here has a fixed number of outputs: export it "
        "for a hub (--to hub), or its backbone (--to timm)."
    )


DELIVERED = (
    Delivered(
        files=CANOPY,
        load=load_canopy,
        about=_about_canopy,
        graph=_graph_of_canopy,
        beside=(APPLICABILITY,),
    ),
    Delivered(
        files=SEGMENTATION,
        load=load_segmentation,
        about=_about_segmentation,
        graph=_graph_of_segmentation,
    ),
    Delivered(
        files=CLASSIFICATION,
        load=load_classification,
        about=_about_classification,
        graph=_graph_of_classification,
    ),
    Delivered(
        files=DETECTION, load=load_detection, about=_about_detection, graph=_graph_of_detection
    ),
)
"""Every kind of head that is handed on."""
