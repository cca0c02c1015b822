"""The public Python functions; they mirror the commands."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from geodino.models.folder import LoadedModel
from geodino.runs.evaluate import EvaluateJob
from geodino.runs.evaluate import evaluate as _evaluate
from geodino.runs.export import load as _load
from geodino.runs.pretrain import PretrainJob
from geodino.runs.pretrain import pretrain as _pretrain

__all__ = ["evaluate", "load", "pretrain"]

_Path = str | PathLike[str]


def pretrain(
    tiles: _Path,
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
    """Pretrain a backbone on tiles, without labels; ``geodino pretrain`` as a function.

    Args:
        tiles: folder, glob, raster or tile index.
        out: run folder.
        recipe: name or YAML file; None chooses one from the data and the device.
        overrides: ``{"train.batch": 32}``; what ``--set`` takes.
        seed: of everything random.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.
        devices: devices on this machine; more than one needs a script, not a notebook.
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
            overrides=tuple(f"{key}={value}" for key, value in (overrides or {}).items()),
            seed=seed,
            device=device,
            devices=devices,
            resume=resume,
            strict=strict,
            dry_run=dry_run,
            quiet=quiet,
        )
    )


def load(model: _Path) -> LoadedModel:
    """Open the model of a run folder or a model folder.

    Returns:
        ``backbone`` (``tokens(image, valid)`` takes stored values ``[b c h w]`` and returns CLS,
        register and patch tokens), ``heads``, ``contract``, ``config``, licence and lineage.

    Raises:
        geodino.errors.CheckpointError: there is no model there, or it is damaged.
    """
    return _load(Path(model))


def evaluate(
    model: _Path,
    suite: _Path,
    out: _Path,
    *,
    probes: Sequence[str] = ("knn", "linear"),
    seed: int = 0,
    device: str = "auto",
    quiet: bool = False,
) -> dict[str, Any]:
    """Probe a model's frozen features on an image folder, beside its floors.

    Args:
        model: run or model folder.
        suite: one folder a class, or ``train/`` and ``test/`` of such folders.
        out: where results are written.
        probes: ``knn``, ``knn-dino``, ``linear``, ``linear-dino``.
        seed: of random weights and bootstrap.
        device: see `pretrain`.
        quiet: say nothing.

    Returns:
        ``rows`` (torchgeo-bench's columns), ``alarms``, ``out``.

    Raises:
        geodino.errors.GeodinoError: a mistake the caller can mend.
    """
    return _evaluate(
        EvaluateJob(
            model=str(model),
            suite=Path(suite),
            out=Path(out),
            probes=tuple(probes),
            seed=seed,
            device=device,
            quiet=quiet,
        )
    )
