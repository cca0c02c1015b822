"""A model folder with a head for a task: two more files beside the backbone's.

``NAME.safetensors`` holds the head, ``NAME.json`` what it is: its config, what follows from that
and is checked, and a section ``extra`` for whatever was learnt about it later. Plain timm opens the
folder as before.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import ValidationError

from geodino import files
from geodino.errors import CheckpointError, RecipeError
from geodino.geo.contract import InputContract
from geodino.models.backbone import Backbone
from geodino.models.card import VERSION, ModelCard, Parent
from geodino.models.folder import (
    WEIGHTS,
    load_model,
    load_tensors,
    read_text,
    save_model,
    save_tensors,
)
from geodino.models.headed import HeadedModel

M = TypeVar("M", bound=HeadedModel)
C = TypeVar("C")


@dataclass(frozen=True, slots=True)
class HeadFiles:
    """What the files of a task are called.

    Args:
        name: before the endings: ``canopy``.
        what: with its article, for messages: ``a canopy model``.
    """

    name: str
    what: str

    @property
    def described(self) -> str:
        """Name of the file that says what the head is."""
        return f"{self.name}.json"

    @property
    def weights(self) -> str:
        """Name of the file with the head's weights."""
        return f"{self.name}.safetensors"

    @property
    def bare(self) -> str:
        """``what`` without its article."""
        return self.what.partition(" ")[2]

    def are_in(self, folder: Path | str) -> bool:
        """Whether a folder holds such a model of ours."""
        return (Path(folder) / self.described).is_file()

    def place(self, model: Path | str) -> Path | None:
        """Return the model folder: the path, or ``model`` in it; None where neither is one."""
        folder = Path(model)
        return next((p for p in (folder, folder / "model") if self.are_in(p)), None)


@dataclass(frozen=True, kw_only=True)
class LoadedHead(Generic[M, C]):
    """A model with a head in memory."""

    model: M
    """On the CPU, in evaluation mode, its backbone frozen."""

    classes: tuple[C, ...] = ()
    """What its outputs are of, by number; empty for heights."""

    contract: InputContract
    license: str
    """Licence the weights carry."""

    lineage: tuple[Parent, ...]
    """Weights they descend from."""

    extra: Mapping[str, Any]
    """What its maker wrote beside it: chips, sampling distance, results; any JSON object."""


def save_headed(
    folder: Path | str,
    model: HeadedModel,
    *,
    of: HeadFiles,
    contract: InputContract,
    card: ModelCard | Mapping[str, Any],
    described: Mapping[str, Any],
    extra: Mapping[str, Any] | None,
) -> None:
    """Write a model folder with a head; each file is whole or absent.

    Args:
        folder: made if missing; files of an earlier model in it are replaced.
        model: with all of its weights in this process.
        of: names of the files.
        contract: what the backbone demands of its input.
        card: what the model's maker says about it.
        described: what the head is.
        extra: a JSON object that is kept as it is.

    Raises:
        RecipeError: the card has unknown or wrong entries.
        RunError: the folder cannot be written.
        ValueError: ``extra`` is no JSON.
    """
    folder = Path(folder)
    kept = json.loads(json.dumps(dict(extra or {}), allow_nan=False))
    save_model(
        folder,
        backbone=model.backbone,
        heads=None,
        contract=contract,
        config=model.backbone.config,
        head_configs=None,
        card=card,
    )
    save_tensors(folder / of.weights, model.head.state_dict())
    known = {"backbone_sha256": files.sha256(folder / WEIGHTS), "extra": kept}
    files.write_json(folder / of.described, {"version": VERSION, **described, **known})


def load_headed(
    folder: Path | str,
    *,
    of: HeadFiles,
    build: Callable[[Backbone, Mapping[str, Any]], M],
    classes: Callable[[Mapping[str, Any]], tuple[C, ...]] = lambda _: (),
    is_same: Callable[[M, Mapping[str, Any]], str] = lambda *_: "",
) -> LoadedHead[M, C]:
    """Read a model folder with a head, strictly.

    Args:
        folder: the folder.
        of: names of the files.
        build: makes the model, its head's weights unset, of what is described.
        classes: reads the classes of what is described.
        is_same: says what of the description this version makes otherwise; empty for nothing.

    Raises:
        CheckpointError: a file is missing, damaged, or does not fit the others.
    """
    folder = Path(folder)
    path = folder / of.described
    described = _described(path, of)
    loaded = load_model(folder)
    version = described.get("version", "unknown")
    try:
        model, found = build(loaded.backbone, described), classes(described)
        digest, extra = described["backbone_sha256"], described["extra"]
        differs = is_same(model, described)
    except (ValidationError, RecipeError, KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{path} does not describe {of.what} this version of geodino ({VERSION}) knows: {error}. "
            f"It was written by version {version}."
        ) from error
    if differs:
        raise CheckpointError(
            f"{path}: {differs} not what this version of geodino ({VERSION}) makes of its config. "
            f"Open it with version {version}, or train the head again."
        )
    if digest != files.sha256(folder / WEIGHTS):
        raise CheckpointError(
            f"{folder / of.weights} was trained on other weights than those in {WEIGHTS} beside it: "
            f"the files belong to different models. Export the {of.bare} again."
        )
    load_tensors(folder / of.weights, model.head.state_dict(), described_in=of.described)
    model.freeze()
    model.eval()
    return LoadedHead(
        model=model,
        classes=found,
        contract=loaded.contract,
        license=loaded.license,
        lineage=loaded.lineage,
        extra=extra,
    )


def names_in(described: Mapping[str, Any]) -> tuple[str, ...]:
    """Return classes that are described by their names alone."""
    return tuple(str(name) for name in described["classes"])


def _described(path: Path, of: HeadFiles) -> dict[str, Any]:
    try:
        described = json.loads(read_text(path))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise CheckpointError(
            f"{path} is not JSON ({error}): export the {of.bare} again, or restore the file."
        ) from error
    if not isinstance(described, dict):
        raise CheckpointError(f"{path} holds no JSON object: export the {of.bare} again.")
    return described
