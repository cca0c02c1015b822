"""A canopy model in other forms: its backbone for timm, all of it for a hub, one graph for ONNX."""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

from geodino import files
from geodino.errors import RecipeError, RunError
from geodino.models.canopy_folder import FILES, LoadedCanopy
from geodino.models.canopy_open import open_canopy
from geodino.models.card import ModelCard
from geodino.models.folder import CONFIG, CONTRACT, HEADS, ITEM, README, WEIGHTS, save_model
from geodino.models.foreign.canopy_to_onnx import save_canopy_onnx
from geodino.runs.predict.heights import RECALIBRATION
from geodino.runs.record import RunFolder
from geodino.tasks.canopy.applicability import APPLICABILITY

_NEEDED = (WEIGHTS, HEADS, CONFIG, CONTRACT, ITEM, README, FILES.weights, FILES.described)
"""Files of a canopy model, in the order in which they are copied."""

_CHIP = 256
"""Side of the chips of a graph, pixels, where the model does not say what it was made with."""


def export_canopy(model: Path, *, to: str, out: Path | None = None) -> dict[str, Any]:
    """Write the model of a finished run of canopy heights, or of a model folder, in another form.

    Args:
        model: the run or the model folder.
        to: ``timm``: the backbone alone, as timm opens it. ``hub``: backbone, head, card and
            applicability, ready to be uploaded. ``onnx``: backbone and head as one graph.
        out: where it goes; None is a place in the run.

    Raises:
        RunError: the run has not finished, there is no ``out`` for what is no run, or a library is
            missing.
        CheckpointError: a file is missing or damaged.
    """
    run = RunFolder(model)
    is_run = run.recipe.is_file()
    folder = run.model if is_run else model
    if is_run and not FILES.are_in(folder):
        raise RunError(
            f"{model} has not finished: it has no model yet. `geodino finetune canopy --resume` "
            "goes on with it."
        )
    if out is None and not is_run:
        raise RunError(f"{model} is no run folder: say with --out where the export goes.")
    loaded = open_canopy(folder)
    if to == "onnx" and RECALIBRATION in loaded.extra:
        raise RecipeError(
            f"{model} was recalibrated, and a graph has no place for its curve: export it for a hub "
            "(--to hub), or the model it began with."
        )
    places = {"timm": model / "timm", "hub": model / "hub", "onnx": model / "model.onnx"}
    target = places[to] if out is None else out
    if target.resolve() == folder.resolve():
        raise RecipeError(f"--out {target} is the model itself: name another folder.")
    name = f"{model.resolve().name}-canopy" if is_run else folder.resolve().name
    facts: dict[str, Any] = {}
    if to == "timm":
        _save_backbone(loaded, target, name=name)
    elif to == "hub":
        _copy(folder, target, loaded)
    else:
        chip = int(loaded.extra.get("chip", _CHIP))
        differences = save_canopy_onnx(
            target,
            model=loaded.model,
            contract=loaded.contract,
            card=_card(loaded, name),
            chip=chip,
        )
        facts = {"chip": chip, "difference_to_torch": differences}
    return {"model": str(target), **facts}


def _card(loaded: LoadedCanopy, name: str) -> ModelCard:
    return ModelCard(
        name=name,
        description=f"{loaded.model.backbone.config.name} of the canopy model {name}.",
        license=loaded.license,
        lineage=loaded.lineage,
        image_size=int(loaded.extra.get("chip", _CHIP)),
    )


def _save_backbone(loaded: LoadedCanopy, target: Path, *, name: str) -> None:
    backbone = loaded.model.backbone
    save_model(
        target, backbone=backbone, heads=None, contract=loaded.contract, config=backbone.config,
        head_configs=None, card=_card(loaded, f"{name}-backbone"),
    )  # fmt: skip


def _copy(folder: Path, target: Path, loaded: LoadedCanopy) -> None:
    """Copy the model's files, and say in the card what the head does."""
    names = [*_NEEDED, *([APPLICABILITY] if (folder / APPLICABILITY).is_file() else [])]
    for name in names:
        if name == README:
            page = (folder / name).read_text(encoding="utf-8")
            files.write_text(target / name, f"{page}\n{_about_head(loaded)}")
        else:
            files.write_with(target / name, partial(shutil.copyfile, folder / name))


def _about_head(loaded: LoadedCanopy) -> str:
    """The section of the card on the canopy head, Markdown."""
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
