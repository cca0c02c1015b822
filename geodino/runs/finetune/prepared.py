"""What every run of fine-tuning is before it runs, whatever its task."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar

from geodino.config import parse_overrides
from geodino.errors import RecipeError, RunError
from geodino.geo.contract import InputContract
from geodino.models.card import Parent
from geodino.runs.finetune.config import F, LabelledConfig, StartConfig, TiledConfig
from geodino.runs.init import model_name
from geodino.runs.models import OpenedModel, open_model, tensors_hash
from geodino.runs.recipe import load_finetune_recipe
from geodino.runs.record import RunFolder

C = TypeVar("C", bound=LabelledConfig)

Relation = Literal["initialised from", "continues", "recalibrated from"]


@dataclass(frozen=True, kw_only=True)
class PreparedFinetune(ABC, Generic[C]):
    """Everything a run of fine-tuning is, before it runs."""

    config: C
    opened: OpenedModel
    images_from: str
    labels_from: str
    split_from: str | None
    fingerprint: str
    """Hash of images, labels and split."""

    notes: tuple[str, ...] = ()
    """Decisions, as sentences for the run card."""

    derived: dict[str, Any] = field(default_factory=dict)
    """Values that followed from the data, with the reasons."""

    @property
    @abstractmethod
    def threads(self) -> int:
        """Threads that read."""

    @property
    @abstractmethod
    def contract(self) -> InputContract:
        """What the resulting model demands of its input."""

    @property
    @abstractmethod
    def data_facts(self) -> dict[str, Any]:
        """How much there is to learn from, for run.json."""

    @abstractmethod
    def write(self, folder: RunFolder) -> None:
        """Write what was chosen of images, labels and ground into a run folder."""

    @property
    def identity(self) -> dict[str, str]:
        """What a checkpoint must carry to be resumed."""
        return {"recipe": self.config.digest(), "data": self.fingerprint}

    @property
    def relation(self) -> Relation:
        """How the result descends from the model it began with."""
        return "initialised from"

    @property
    def lineage(self) -> tuple[Parent, ...]:
        """What the result descends from: the model it began with, and its parents."""
        loaded = self.opened.loaded
        older, names = loaded.lineage, [self.opened.name]
        # What was converted is the parent itself: a file, or a backbone's and its head's.
        converted = [parent for parent in older if parent.relation == "converted from"]
        if converted and older[-1] in converted:
            older = tuple(parent for parent in older if parent not in converted)
            names = [parent.name for parent in converted]
        parents = (
            Parent(name=name, license=loaded.license, relation=self.relation) for name in names
        )
        return (*older, *parents)


def backbone_hash(opened: OpenedModel) -> str:
    """Return the hash a run remembers the weights it began with by."""
    return tensors_hash(opened.loaded.backbone.state_dict())


def started(config: F, opened: OpenedModel, model: str, *, head: str | None = None) -> F:
    """Write into a recipe which weights the run begins with.

    Args:
        config: the recipe.
        opened: the model.
        model: MODEL.
        head: hash of the head's weights, where they are begun with too.

    Raises:
        RecipeError: it was recorded with others.
    """
    start = StartConfig(
        model=model_name(model), name=opened.name, sha256=backbone_hash(opened), head_sha256=head
    )
    if config.start is not None and config.start.sha256 != start.sha256:
        raise RecipeError(
            f"start: the recipe was recorded with another model than {opened.name}. Leave `start` "
            "out of the recipe; --model says what the run begins with."
        )
    return config.with_values({"start": start.model_dump()})


def opened_again(
    config: LabelledConfig, folder: RunFolder, opening: Callable[[str], OpenedModel] = open_model
) -> OpenedModel:
    """Open the model that a recorded run began with, by ``opening``.

    Raises:
        RunError: it is another by now.
    """
    if config.start is None:
        raise RunError(f"{folder.recipe} names no model: it was not recorded by a run.")
    opened = opening(config.start.model)
    if backbone_hash(opened) != config.start.sha256:
        raise RunError(
            f"The model {config.start.model} has other weights than when the run began: put those "
            "back, or start a new run in another --out."
        )
    return opened


def unchanged(fingerprint: str, facts: dict[str, Any], folder: RunFolder) -> str:
    """Return the fingerprint of the data.

    Raises:
        RunError: the run began with other data.
    """
    if fingerprint != facts["data"]["fingerprint"]:
        raise RunError(
            f"The images, labels or split of {folder.root} changed since it was started (a file "
            "was rewritten): restore them, or start a new run in another --out."
        )
    return fingerprint


def asked_again(
    like: F, recipe: str | None, overrides: Sequence[str], derived: Mapping[str, Any]
) -> F:
    """Return the recipe of a recorded run as another command line asks for it.

    Args:
        like: the recorded recipe.
        recipe: name or file; None is the recorded one.
        overrides: ``key.path=value``.
        derived: values of the recorded recipe that nobody asked for.
    """
    if recipe is None:
        return like.with_values(parse_overrides(overrides))
    config = load_finetune_recipe(type(like), recipe, overrides)
    values: dict[str, Any] = {"start": like.start and like.start.model_dump()}
    if isinstance(config, TiledConfig) and config.data.bands is None:
        values["data"] = {"bands": like.model_dump()["data"]["bands"]}
    if "gsd_m" in derived:
        values["gsd_m"] = derived["gsd_m"]["value"]
    return config.with_values(values)
