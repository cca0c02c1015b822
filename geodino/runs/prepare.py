"""Before the first step: look at the tiles, settle every value that depends on them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from geodino.config import parse_overrides
from geodino.data.chips import resolve_chip
from geodino.data.config import DataConfig
from geodino.data.dates import companions
from geodino.data.fit import enlarged
from geodino.data.index import build_index
from geodino.data.parallel import thread_count
from geodino.data.sources.find import absolute
from geodino.data.statistics import measure_source
from geodino.data.tiles import TileIndex
from geodino.errors import RecipeError
from geodino.geo.contract import InputContract
from geodino.pretrain.phases import PhaseConfig
from geodino.runs.batch_size import largest_batch
from geodino.runs.build import batches_of, check_sizes, resolved_chip
from geodino.runs.gram_teacher import checked_gram_teacher, gram_model
from geodino.runs.init import Start, adopt_statistics, apply_init, as_begun
from geodino.runs.processes import Processes
from geodino.runs.recipe import R, RunConfig, TrainingConfig, load_recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class PreparedTraining:
    """Everything a training run is, before it runs."""

    config: TrainingConfig
    """Complete, with every ``auto`` that depends on the source resolved."""

    index: TileIndex
    contract: InputContract

    source: str
    """What the user called the tiles, as an absolute path or pattern."""

    fingerprint: str
    """Hash of the tiles' contents."""

    derived: dict[str, Any]
    """Values that were chosen, each with its reason."""

    def data_facts(self) -> dict[str, Any]:
        """What run.json says about the data."""
        index = self.index
        return {
            "fingerprint": self.fingerprint,
            "tiles": len(index.tiles),
            "unusable": [{"path": path, "reason": reason} for path, reason in index.bad],
            "pixels": index.pixels,
            "bands": [band.name for band in index.bands],
            "dtype": index.dtype,
            "crs": list(index.crs),
            "gsd_m": index.gsd_m,
            "decisions": [*index.rule.reasons, *index.notes],
        }


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared(PreparedTraining):
    """Everything a pretraining run is, before it runs."""

    config: RunConfig

    start: Start | None = None
    """The model the run begins with; None for random weights, and for a run that was recorded."""


def prepare(
    tiles: str,
    recipe: str | None,
    overrides: Sequence[str],
    *,
    processes: Processes | None = None,
    like: Prepared | None = None,
) -> Prepared:
    """Read the recipe, look at the tiles, and settle what depends on them.

    Args:
        tiles: what the user called the tiles.
        recipe: name or file; None chooses one from the tiles and the device.
        overrides: ``key.path=value``.
        processes: where the run will compute; None is one process on the CPU.
        like: a recorded run whose tiles and derived values are taken as they are, so that only
            the recipe is read anew.

    Raises:
        GeodinoError: whatever is wrong with the recipe or the tiles.
    """
    processes = processes or Processes(device=torch.device("cpu"), devices=1)
    config = None if recipe is None else load_recipe(recipe, overrides)
    if like is not None:
        return replace(like, config=_as_recorded(config, like.config, overrides))
    data = config.data if config is not None else _data_config(overrides)
    index = build_index(tiles, data, threads=thread_count("auto"))
    derived: dict[str, Any] = {}
    if config is None:
        name, reason = choose_recipe(index, processes.device)
        derived["recipe"] = {"value": name, "reason": reason}
        config = load_recipe(name, overrides)
    config, start, from_parent = apply_init(config, overrides)
    derived |= from_parent
    check_sizes(config)
    index, contract = look_at_tiles(config, index)
    if start is not None and config.init is not None:
        contract, from_parent = adopt_statistics(config.init, start, contract)
        derived |= from_parent
    config = with_chips(config, index, derived)
    shown = enlarged(index.tiles, resolved_chip(config))
    index = replace(index, notes=(*index.notes, *shown))
    if config.train.batch == "auto":
        batch, reason = largest_batch(config, contract, processes)
        derived["train.batch"] = {"value": batch, "reason": reason}
        config = config.with_values({"train": {"batch": batch}})
    config = with_batches(config, processes.world, derived)
    check_groups(config, processes.world)
    if (named := gram_model(config)) is not None:
        checked_gram_teacher(config, contract, named)
    return Prepared(
        config=config,
        index=index,
        contract=contract,
        source=absolute(tiles),
        fingerprint=fingerprint_of(config, index),
        derived=derived,
        start=start,
    )


def look_at_tiles(config: TrainingConfig, index: TileIndex) -> tuple[TileIndex, InputContract]:
    """Measure the tiles; return those that can be used, and what a model of them would demand.

    Raises:
        GeodinoError: whatever is wrong with the tiles.
    """
    if config.data.dates > 1:
        _, note = companions(index, config.data.dates, config.train.seed)
        index = replace(index, notes=(*index.notes, note))
    threads = thread_count(config.data.threads, far=index.is_far)
    return measure_source(index, config.data, threads=threads)


def fingerprint_of(config: TrainingConfig, index: TileIndex) -> str:
    """Return the hash of the tiles' contents."""
    return index.fingerprint(threads=thread_count(config.data.threads, far=index.is_far))


def choose_recipe(index: TileIndex, device: torch.device) -> tuple[str, str]:
    """Return the recipe that fits the tiles and the device, and why."""
    if device.type == "cpu":
        return "laptop", "there is no GPU: a tiny ViT that learns in minutes"
    gsd = index.gsd_m
    if len(index.bands) >= 10 and gsd is not None and gsd[0] > 5:
        return "s2-vits16", f"{len(index.bands)} bands at {gsd[0]:.0f} m, as Sentinel-2's"
    memory = torch.cuda.get_device_properties(device).total_memory / 2**30
    if memory >= 70:
        return "sat-vitb16", f"a GPU with {memory:.0f} GiB"
    return "sat-vits16", f"a GPU with {memory:.0f} GiB"


def _as_recorded(
    asked: RunConfig | None, recorded: RunConfig, overrides: Sequence[str]
) -> RunConfig:
    """What a resumed run is asked to be, with the values that were derived when it began."""
    if asked is None:
        return recorded.with_values(parse_overrides(overrides))
    begun = asked.with_values(as_begun(asked, recorded, overrides))
    return with_recorded_sizes(begun, recorded)


def with_recorded_sizes(asked: R, recorded: R) -> R:
    """Return what is asked, with chips and batches as they were derived in a recorded run."""
    values: dict[str, Any] = {}
    if asked.data.chip == "auto":
        values["data"] = {"chip": recorded.data.chip}
    if asked.train.batch == "auto":
        values["train"] = {"batch": recorded.train.batch}
    before = dict(recorded.phases.all())
    values["phases"] = {
        name: _phase_as_recorded(phase, before[name])
        for name, phase in asked.phases.all()
        if name in before
    }
    return asked.with_values(values)


def _phase_as_recorded(asked: PhaseConfig, recorded: PhaseConfig) -> dict[str, Any]:
    values: dict[str, Any] = {}
    if asked.chip == "auto":
        values["chip"] = recorded.chip
    if recorded.sizes and len(asked.choices) == len(recorded.choices):
        values["sizes"] = [
            {**a.model_dump(), "batch": r.batch if a.batch == "auto" else a.batch}
            for a, r in zip(asked.choices, recorded.choices, strict=True)
        ]
    return values


def _data_config(overrides: Sequence[str]) -> DataConfig:
    """The data section alone, for looking at the tiles before a recipe is chosen."""
    return DataConfig.parse(parse_overrides(overrides).get("data", {}), source="--set data")


def with_chips(config: R, index: TileIndex, derived: dict[str, Any], *, scale: float = 1.0) -> R:
    """Write down the chip of each phase: what its crops ask for, as far as the tiles allow.

    Args:
        config: the recipe.
        index: the tiles.
        derived: takes what was chosen, and why.
        scale: sides of the largest crops that are made, as a multiple of the recipe's.

    Raises:
        RecipeError: crops larger than the tiles.
    """
    values: dict[str, Any] = {"phases": {}}
    for number, (name, phase) in enumerate(config.phases.active()):
        largest = round(scale * phase.largest_global)
        wanted = max(2 * phase.largest_global, largest)
        declared = config.data.chip if phase.chip == "auto" else phase.chip
        data = config.data.model_copy(update={"chip": declared})
        chip = resolve_chip(data, index, wanted)
        if chip < largest and not phase.views.enlarge:
            raise RecipeError(
                f"phases.{name}: global crops of {largest} px are larger than the "
                f"{chip} px chips that the tiles give, so pixels would only be enlarged. Lower "
                f"phases.{name}.views.global_size (or sizes), use larger tiles, or allow it with "
                f"phases.{name}.views.enlarge=true."
            )
        key = "data.chip" if number == 0 else f"phases.{name}.chip"
        if declared == "auto":
            derived[key] = {"value": chip, "reason": f"views ask for {wanted} px"}
        if number == 0:
            values["data"] = {"chip": chip}
        values["phases"][name] = {"chip": chip}
    return config.with_values(values)


def with_batches(config: R, devices: int, derived: dict[str, Any]) -> R:
    """Write down how many samples a step has of each choice of crop sizes that is left to us."""
    values: dict[str, Any] = {}
    for name, phase in config.phases.active():
        batches = batches_of(config, phase, devices=devices)
        if batches == [config.train.batch] and not phase.sizes:
            continue
        asked = [choice.batch for choice in phase.choices]
        if "auto" in asked:
            derived[f"phases.{name}.sizes.batch"] = {
                "value": batches,
                "reason": "as many pixels as a batch of the first phase, in whole groups",
            }
        chosen = zip(phase.choices, batches, strict=True)
        values[name] = {"sizes": [{**c.model_dump(), "batch": b} for c, b in chosen]}
    return config.with_values({"phases": values}) if values else config


def check_groups(config: TrainingConfig, devices: int, *, fixed: bool = False) -> None:
    """Check that every device can hold whole groups of each batch.

    Args:
        config: with a resolved batch.
        devices: in all.
        fixed: the run has begun: its batches stay, the number of devices may change.

    Raises:
        RecipeError: a batch cannot be shared.
    """
    group = config.train.group
    for name, phase in config.phases.active():
        for batch in batches_of(config, phase, devices=1 if fixed else devices):
            if batch % (group * devices) and fixed:
                raise RecipeError(
                    f"A batch of phases.{name} has {batch} samples, which {devices} devices cannot "
                    f"share in whole groups of {group} (train.group), and a run that has begun keeps "
                    f"its batches: resume it on a number of devices that divides {batch // group}."
                )
            if batch % (group * devices):
                key = f"phases.{name}.sizes.batch" if phase.sizes else "train.batch"
                raise RecipeError(
                    f"{key}: {batch} samples cannot be shared by {devices} devices in whole groups "
                    f"of {group} (train.group); make it a multiple of {group * devices}."
                )
