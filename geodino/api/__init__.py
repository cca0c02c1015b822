"""The public Python functions; they mirror the commands."""

from collections.abc import Mapping, Sequence
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from geodino.api.maps import change, embed, predict
from geodino.api.model import Model, open_any
from geodino.api.words import assignments
from geodino.evals.advice import Advice
from geodino.evals.advice import recommend as _recommend
from geodino.runs.distill import DistillJob
from geodino.runs.distill import distill as _distill
from geodino.runs.evaluate import EvaluateJob
from geodino.runs.evaluate import evaluate as _evaluate
from geodino.runs.finetune import FinetuneJob
from geodino.runs.finetune import finetune as _finetune
from geodino.runs.pretrain import PretrainJob
from geodino.runs.pretrain import pretrain as _pretrain

__all__ = [
    "Model",
    "change",
    "distill",
    "embed",
    "evaluate",
    "finetune",
    "load",
    "predict",
    "pretrain",
    "recommend",
]

_Path = str | PathLike[str]


def pretrain(
    tiles: _Path,
    out: _Path,
    *,
    recipe: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    init: _Path | None = None,
    seed: int | None = None,
    device: str = "auto",
    devices: int = 1,
    nodes: int = 1,
    strategy: str = "auto",
    resume: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Pretrain a backbone on tiles, without labels; ``geodino pretrain`` as a function.

    Args:
        tiles: folder, glob, raster or tile index.
        out: run folder.
        recipe: name or YAML file; None chooses one from the data and the device.
        overrides: ``{"train.batch": 32}``; what ``--set`` takes.
        init: model whose weights the run begins with (see `load`); None begins with random ones.
        seed: of everything random.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        devices: devices on each machine; more than one needs a script, not a notebook.
        nodes: machines; the others are started by torchrun or SLURM.
        strategy: ``ddp`` (each device holds everything), ``fsdp`` (each holds a part), or ``auto``.
        resume: go on with the run in ``out``.
        strict: an unreadable tile stops the run.
        dry_run: validate, show the run card, stop.
        quiet: say nothing.

    Returns:
        Run folder, model folder, steps done and last losses.

    Raises:
        geodino.errors.GeodinoError: a mistake the caller can mend.
    """
    return _pretrain(
        PretrainJob(
            tiles=str(tiles),
            out=Path(out),
            recipe=recipe,
            overrides=assignments(overrides),
            init=None if init is None else fspath(init),
            seed=seed,
            device=device,
            devices=devices,
            nodes=nodes,
            strategy=strategy,
            resume=resume,
            strict=strict,
            dry_run=dry_run,
            quiet=quiet,
        )
    )


def distill(
    tiles: _Path,
    teacher: _Path | None,
    students: Sequence[str] | None,
    out: _Path,
    *,
    recipe: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    seed: int | None = None,
    device: str = "auto",
    devices: int = 1,
    resume: bool = False,
    strict: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Teach several small models what a large one knows; ``geodino distill`` as a function.

    Args:
        tiles: folder, glob, raster or tile index.
        teacher: model that teaches; None with ``resume``.
        students: names of the table or of timm; None takes those of the recipe.
        out: run folder; student NAME lies in ``out/students/NAME``, the first in ``out/model`` too.
        recipe: name or YAML file; None is ``distill-sat``.
        overrides: ``{"train.batch": 32}``; what ``--set`` takes.
        seed: of everything random.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        devices: devices on this machine; more than one needs a script, not a notebook.
        resume: go on with the run in ``out``.
        strict: an unreadable tile stops the run.
        dry_run: validate, show the run card, stop.
        quiet: say nothing.

    Returns:
        Run folder, model folders, steps done and last losses.

    Raises:
        geodino.errors.GeodinoError: a mistake the caller can mend.
    """
    return _distill(
        DistillJob(
            tiles=str(tiles),
            teacher=None if teacher is None else fspath(teacher),
            students=None if students is None else tuple(students),
            out=Path(out),
            recipe=recipe,
            overrides=assignments(overrides),
            seed=seed,
            device=device,
            devices=devices,
            resume=resume,
            strict=strict,
            dry_run=dry_run,
            quiet=quiet,
        )
    )


def finetune(
    task: str,
    images: _Path,
    labels: _Path | None,
    model: _Path | None,
    out: _Path,
    *,
    recipe: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    split: _Path | None = None,
    unfreeze: bool = False,
    seed: int | None = None,
    device: str = "auto",
    resume: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Teach a model a task from labels; ``geodino finetune`` as a function.

    Args:
        task: ``canopy``, ``segmentation``, ``detection`` or ``classification``.
        images: folder, glob, raster or tile index; for classification, a labelled set.
        labels: rasters of heights or classes, masks, vector files, or COCO's JSON; None where images
            bring their labels: the folder of a known set, or classification.
        model: model whose features are used (see `load`); None with ``resume``.
        out: run folder.
        recipe: name or YAML file; None is the one called as the task.
        overrides: ``{"train.steps": 2000}``; what ``--set`` takes.
        split: vector file of polygons with a column ``split``, or a CSV of images; None draws
            blocks of ground.
        unfreeze: the backbone learns as well.
        seed: of everything random but the split.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        resume: go on with the run in ``out``.
        dry_run: validate, show the run card, stop.
        quiet: say nothing.

    Returns:
        Run folder, model folder, and the results: scores of the model and of floors, intervals.

    Raises:
        geodino.errors.GeodinoError: a mistake the caller can mend.
    """
    return _finetune(
        FinetuneJob(
            task=task,
            images=str(images),
            labels=None if labels is None else str(labels),
            model=None if model is None else fspath(model),
            out=Path(out),
            recipe=recipe,
            overrides=assignments(overrides),
            split=None if split is None else fspath(split),
            unfreeze=unfreeze,
            seed=seed,
            device=device,
            resume=resume,
            dry_run=dry_run,
            quiet=quiet,
        )
    )


def load(model: _Path) -> Model:
    """Open a model.

    Args:
        model: run or model folder, ``timm:NAME.TAG``, ``hub:OWNER/NAME``, a folder of transformers'
            DINOv3, or a weights file of Meta's.

    Returns:
        ``embed(path or DataArray)`` gives features, ``predict(...)`` heights where the model has a
        canopy head; ``backbone`` (``tokens(image, valid)`` takes
        stored values ``[b c h w]`` and returns CLS, register and patch tokens), ``heads``,
        ``contract``, ``config``, licence and lineage.

    Raises:
        geodino.errors.CheckpointError: there is no model there, it is damaged, or it cannot be
            fetched.
    """
    return open_any(fspath(model))


def evaluate(
    model: _Path,
    suite: _Path,
    out: _Path,
    *,
    data: _Path | None = None,
    protocol: str = "geodino",
    bands: str | None = None,
    probes: Sequence[str] = (),
    features: Sequence[str] = (),
    by: Sequence[str] = (),
    image_size: int | None = None,
    reference: _Path | None = None,
    cache: _Path | None = None,
    seed: int = 0,
    device: str = "auto",
    resume: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Probe a model's frozen features on labelled images, beside its floors.

    Args:
        model: see `load`.
        suite: ``mini``, ``geobench-v1[/SET]``, ``geobench-v2[/SET]``, ``torchgeo/SET``, or a folder:
            one folder a class, or one with a ``dataset.yaml``.
        out: where results are written.
        data: where the files of a named suite lie.
        protocol: ``geodino``, ``torchgeo-bench`` or ``dinov3-approx``.
        bands: ``model``, ``rgb``, ``all``, or names with commas; None: as the protocol says.
        probes: names of probes; empty: those of the protocol.
        features: ``cls``, ``mean``, ``concat``; empty: those of the protocol.
        by: traits that scores are grouped by, such as ``region``.
        image_size: side that images are resized to, pixels; None: as the protocol says.
        reference: table of published rows (torchgeo-bench's columns).
        cache: where features are kept; None: in ``out``.
        seed: of random weights, probes and bootstrap.
        device: see `pretrain`.
        resume: go on with the sets that are left.
        quiet: say nothing.

    Returns:
        ``rows`` (torchgeo-bench's columns), ``alarms``, ``missing``, ``failed``, ``out``,
        ``report``.

    Raises:
        geodino.errors.GeodinoError: a mistake the caller can mend.
    """
    return _evaluate(
        EvaluateJob(
            model=str(model),
            suite=str(suite),
            out=Path(out),
            data=None if data is None else Path(data),
            protocol=protocol,
            bands=bands,
            probes=tuple(probes),
            features=tuple(features),
            by=tuple(by),
            image_size=image_size,
            reference=None if reference is None else Path(reference),
            cache=None if cache is None else Path(cache),
            seed=seed,
            device=device,
            resume=resume,
            quiet=quiet,
        )
    )


def recommend(
    task: str, *, gsd: float | None = None, bands: str | Sequence[str] | None = None
) -> Advice:
    """Say which of DINOv3's variants to begin with, satellite or web, with the evidence.

    Args:
        task: ``canopy``, ``classification``, ``segmentation`` or ``detection``.
        gsd: ground sampling distance of your images, metres; None: not known.
        bands: common names of your bands, a list or words with commas; None: red, green and blue.

    Returns:
        The variant, models to try, the reasons, and the published comparisons.

    Raises:
        geodino.errors.RecipeError: there is no evidence on such a task, or no pixel has such a size.
    """
    return _recommend(task, gsd_m=gsd, bands=bands)
