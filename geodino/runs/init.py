"""``--init``: a run that begins with the weights of another model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geodino.config import parse_overrides
from geodino.errors import ContractError, RecipeError
from geodino.geo.contract import InputContract
from geodino.models.adapt import Adaptation, InitConfig, adaptation
from geodino.models.build import assemble, materialise
from geodino.models.canopy_open import pair_of
from geodino.models.card import Parent
from geodino.models.folder import load_model, save_model
from geodino.models.heads import HeadConfig
from geodino.models.shards import take
from geodino.models.sizes import ModelConfig
from geodino.pretrain.objective import Network
from geodino.runs.models import OpenedModel, open_model, tensors_hash
from geodino.runs.recipe import RunConfig
from geodino.runs.record import RunFolder

_ARCHITECTURE = ("name", "patch_size", "dim", "depth", "heads", "layer_scale", "local_cls_norm")
"""Keys of the model section that the parent's weights decide."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Start:
    """The model a run begins with."""

    opened: OpenedModel
    heads: tuple[str, ...]
    """Names of the parent's heads that are taken."""

    def lineage(self) -> tuple[Parent, ...]:
        """Weights that the run's model descends from, the parent last."""
        loaded = self.opened.loaded
        older = loaded.lineage
        name = self.opened.name
        if older and older[-1].relation == "converted from":
            # What was converted is the parent itself.
            older, name = older[:-1], older[-1].name
        return (*older, Parent(name=name, license=loaded.license))


def apply_init(
    config: RunConfig, overrides: Sequence[str]
) -> tuple[RunConfig, Start | None, dict[str, Any]]:
    """Open the parent and let it decide what its weights decide.

    Args:
        config: the recipe.
        overrides: what the user set by hand.

    Returns:
        The recipe with the parent's architecture and heads, the parent (None without ``init``),
        and derived values with their reasons.

    Raises:
        RecipeError: the user set a key that the parent's weights decide otherwise.
        CheckpointError: the parent cannot be opened.
    """
    if config.init is None:
        return config, None, {}
    opened = open_model(config.init.model)
    by_hand = parse_overrides(overrides)
    model = _model(config.model, opened, by_hand.get("model", {}))
    heads, taken = _heads(config, opened, is_set="heads" in by_hand)
    sha256 = tensors_hash(opened.loaded.backbone.state_dict())
    changed = config.with_values(
        {
            "model": model.model_dump(),
            "heads": {name: head.model_dump() for name, head in heads.items()},
            "init": {"sha256": sha256},
        }
    )
    from_parent = f"of {config.init.model}"
    derived = {
        "model": {"value": model.name, "reason": from_parent},
        "heads": {
            "value": " and ".join(taken) or "fresh",
            "reason": from_parent if taken else f"{config.init.model} brings none that fit",
        },
    }
    return changed, Start(opened=opened, heads=taken), derived


def adopt_statistics(
    init: InitConfig, start: Start, contract: InputContract
) -> tuple[InputContract, dict[str, Any]]:
    """Choose mean and standard deviation: the parent's or the measured ones.

    Raises:
        ContractError: the parent's were asked for, but belong to other bands or another type.
        BandError: the bands cannot be brought together by the rule.
    """
    parent = start.opened.loaded.contract
    how = adaptation(parent.bands, contract.bands, rule=init.bands)
    derived = {"init.bands": {"value": init.bands, "reason": how.words}}
    agrees = how.is_exact and parent.dtype == contract.dtype
    if init.statistics == "parent" and not agrees:
        raise ContractError(
            f"init.statistics: parent needs the bands and the type of {init.model} "
            f"({', '.join(parent.band_names)}; {parent.dtype}), but the tiles have "
            f"{', '.join(contract.band_names)}; {contract.dtype}. Use measured or auto."
        )
    if init.statistics == "measured" or not agrees:
        reason = "asked for" if init.statistics == "measured" else "other bands or stored type"
        derived["init.statistics"] = {"value": "measured", "reason": reason}
        return contract, derived
    order = [int(s) for s in how.sources if s is not None]
    derived["init.statistics"] = {"value": "parent", "reason": "the same bands and stored type"}
    taken = contract.model_copy(
        update={
            "mean": tuple(parent.mean[s] for s in order),
            "std": tuple(parent.std[s] for s in order),
            "statistics": {**contract.statistics, "mean_and_std": f"those of {init.model}"},
        }
    )
    return taken, derived


def record_start(
    folder: RunFolder, config: RunConfig, contract: InputContract, start: Start | None
) -> dict[str, Any]:
    """Write the initial weights into the run folder, where every process and resume finds them.

    Returns:
        What run.json says about them; nothing for a run from random weights.
    """
    if start is None or config.init is None:
        return {}
    loaded = start.opened.loaded
    how = adaptation(loaded.contract.bands, contract.bands, rule=config.init.bands)
    backbone = assemble(config.model, mean=contract.mean, std=contract.std)
    materialise(backbone)
    state = dict(loaded.backbone.state_dict())
    stem = "trunk.patch_embed.proj.weight" if loaded.backbone.depth else "trunk.stem.0.weight"
    state[stem] = how.apply(state[stem])
    backbone.load_state_dict(state)
    chosen = {"dino": config.heads.dino, "ibot": config.heads.ibot}
    adapted = _adapted(how, loaded.contract, contract)
    parents = [parent.model_dump(mode="json") for parent in start.lineage()]
    save_model(
        folder.init,
        backbone=backbone,
        heads={name: loaded.heads[name] for name in start.heads},
        contract=contract,
        config=config.model,
        head_configs={name: chosen[name] for name in start.heads},
        card={
            "name": f"{folder.root.resolve().name}-init",
            "description": f"The weights this run begins with, of {config.init.model}.",
            "lineage": parents,
            "adapted": adapted,
            "image_size": config.phases.first.views.global_size,
        },
    )
    return {"init_sha256": config.init.sha256, "parents": parents, "adapted": adapted}


def load_start(config: RunConfig, network: Network, folder: RunFolder) -> None:
    """Give a freshly built network the weights its run begins with, if not random ones.

    Args:
        config: of the run.
        network: the student; processes may share it.
        folder: of the run.

    Raises:
        CheckpointError: they are missing or damaged.
    """
    if config.init is None:
        return
    start = load_model(folder.init)
    take(network.backbone, start.backbone.state_dict())
    heads = {"dino": network.dino_head, "ibot": network.ibot_head}
    for name, head in heads.items():
        if head is not None and name in start.heads:
            take(head, start.heads[name].state_dict())


def descent(folder: RunFolder) -> dict[str, Any]:
    """Return what a model card says about where a run's weights came from; empty from scratch.

    Raises:
        RunError: run.json cannot be read.
    """
    facts = folder.read_facts() if folder.facts.is_file() else {}
    about: dict[str, Any] = {}
    if facts.get("parents"):
        about["lineage"] = facts["parents"]
    if facts.get("adapted"):
        about["adapted"] = facts["adapted"]
    return about


def as_begun(asked: RunConfig, recorded: RunConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Return what the parent decided when a run began, for a recipe that is read again to resume.

    Keys that the user set by hand stay as asked, so that a difference is seen.
    """
    if asked.init is None or recorded.init is None:
        return {}
    by_hand = parse_overrides(overrides)
    model = recorded.model.model_dump()
    decided = {k: model[k] for k in _ARCHITECTURE if k not in by_hand.get("model", {})}
    if recorded.model.family == "convnext":
        decided["drop_path"] = recorded.model.drop_path
    decided["rope"] = {"base": recorded.model.rope.base}
    values: dict[str, Any] = {"init": {"sha256": recorded.init.sha256}, "model": decided}
    if "heads" not in by_hand:
        values["heads"] = recorded.heads.model_dump()
    return values


def model_name(model: str | Path) -> str:
    """Return MODEL as a recipe records it: a path is made absolute."""
    text = str(model)
    file, at, images = text.rpartition("@")
    if at and Path(file).is_file():
        return f"{Path(file).resolve()}@{images}"
    if (pair := pair_of(text)) is not None:
        return "+".join(str(path.resolve()) for path in pair)
    return str(Path(text).resolve()) if Path(text).exists() else text


def _model(recipe: ModelConfig, opened: OpenedModel, by_hand: Mapping[str, Any]) -> ModelConfig:
    """The parent's architecture with the recipe's settings for training."""
    parent = opened.loaded.config
    for key in _ARCHITECTURE:
        if key in by_hand and _meaning(by_hand[key], key, parent) != _of(parent, key):
            raise RecipeError(
                f"model.{key}: {by_hand[key]!r} was set, but the weights of {opened.name} have "
                f"{_of(parent, key)!r}. Leave it out, or start without --init."
            )
    base = by_hand.get("rope", {}).get("base", parent.rope.base)
    if base != parent.rope.base:
        raise RecipeError(
            f"model.rope.base: {base} was set, but the weights of {opened.name} were trained with "
            f"{parent.rope.base}. Leave it out, or start without --init."
        )
    training: dict[str, Any] = {
        "init": recipe.init,
        "activation_checkpointing": recipe.activation_checkpointing,
        "rope": recipe.rope.model_dump() | {"base": parent.rope.base},
    }
    if parent.family == "vit":
        training["drop_path"] = recipe.drop_path
    elif by_hand.get("drop_path"):
        raise RecipeError(
            f"model.drop_path: {by_hand['drop_path']} was set, but {opened.name} is a ConvNeXt, "
            "which has none. Leave it out."
        )
    return ModelConfig.parse(parent.model_dump() | training, source="The parent's model")


def _of(config: ModelConfig, key: str) -> Any:
    """The effective value of a key, where None stands for the named size's own."""
    if key == "layer_scale":
        return "LayerScale" if config.initial_layer_scale is not None else "no LayerScale"
    if key == "heads":
        return config.heads or "the size's own"
    return {"patch_size": config.stride, "dim": config.width, "depth": config.blocks}.get(
        key, getattr(config, key)
    )


def _meaning(value: Any, key: str, parent: ModelConfig) -> Any:
    """What a value set by hand means, in the words of ``_of``."""
    if key == "layer_scale":
        return "no LayerScale" if value == 0 else "LayerScale"
    return _of(parent, key) if value is None and getattr(parent, key) is None else value


def _heads(
    config: RunConfig, opened: OpenedModel, *, is_set: bool
) -> tuple[dict[str, HeadConfig], tuple[str, ...]]:
    """Each head's config, and the names of those whose weights are the parent's."""
    chosen = {"dino": config.heads.dino, "ibot": config.heads.ibot}
    taken = []
    for name, asked in chosen.items():
        theirs = opened.loaded.head_configs.get(name)
        if theirs is None:
            continue
        same = theirs.model_copy(update={"init": asked.init})  # it only matters to fresh weights
        if not is_set or same == asked:
            chosen[name] = same
            taken.append(name)
    return chosen, tuple(taken)


def _adapted(how: Adaptation, parent: InputContract, contract: InputContract) -> str:
    if how.is_exact:
        return ""
    return (
        f"the weights were made for {', '.join(parent.band_names)} and given to "
        f"{', '.join(contract.band_names)}: {how.words}."
    )
