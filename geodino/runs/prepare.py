"""Before the first step: look at the tiles, settle every value that depends on them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from geodino.config import parse_overrides
from geodino.data.config import DataConfig
from geodino.data.dates import companions
from geodino.data.index import build_index
from geodino.data.parallel import thread_count
from geodino.data.sources.find import absolute
from geodino.data.statistics import measure_source
from geodino.data.tiles import TileIndex, resolve_chip
from geodino.errors import RecipeError
from geodino.geo.contract import InputContract
from geodino.runs.batch_size import largest_batch
from geodino.runs.build import check_sizes
from geodino.runs.recipe import RunConfig, load_recipe


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """Everything a run is, before it runs."""

    config: RunConfig
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


def prepare(
    tiles: str,
    recipe: str | None,
    overrides: Sequence[str],
    *,
    device: torch.device | None = None,
    devices: int = 1,
    like: Prepared | None = None,
) -> Prepared:
    """Read the recipe, look at the tiles, and settle what depends on them.

    Args:
        tiles: what the user called the tiles.
        recipe: name or file; None chooses one from the tiles and the device.
        overrides: ``key.path=value``.
        device: where the run will compute.
        devices: how many of them.
        like: a recorded run whose tiles and derived values are taken as they are, so that only
            the recipe is read anew.

    Raises:
        GeodinoError: whatever is wrong with the recipe or the tiles.
    """
    config = None if recipe is None else load_recipe(recipe, overrides)
    if like is not None:
        return replace(like, config=_as_recorded(config, like.config, overrides))
    data = config.data if config is not None else _data_config(overrides)
    index = build_index(tiles, data, threads=thread_count("auto"))
    derived: dict[str, Any] = {}
    if config is None:
        name, reason = choose_recipe(index, device or torch.device("cpu"))
        derived["recipe"] = {"value": name, "reason": reason}
        config = load_recipe(name, overrides)
    check_sizes(config)
    if config.data.dates > 1:
        _, note = companions(index, config.data.dates, config.train.seed)
        index = replace(index, notes=(*index.notes, note))
    threads = thread_count(config.data.threads, far=index.is_far)
    index, contract = measure_source(index, config.data, threads=threads)
    wanted = 2 * config.phases.pretrain.views.global_size
    chip = resolve_chip(config.data, index, wanted)
    if config.data.chip == "auto":
        derived["data.chip"] = {"value": chip, "reason": f"views ask for {wanted} px"}
    config = config.with_values({"data": {"chip": chip}})
    if config.train.batch == "auto":
        batch, reason = largest_batch(config, contract, device=device, devices=devices)
        derived["train.batch"] = {"value": batch, "reason": reason}
        config = config.with_values({"train": {"batch": batch}})
    _check_groups(config, devices)
    return Prepared(
        config=config,
        index=index,
        contract=contract,
        source=absolute(tiles),
        fingerprint=index.fingerprint(threads=threads),
        derived=derived,
    )


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
    values: dict[str, Any] = {}
    if asked.data.chip == "auto":
        values["data"] = {"chip": recorded.data.chip}
    if asked.train.batch == "auto":
        values["train"] = {"batch": recorded.train.batch}
    return asked.with_values(values)


def _data_config(overrides: Sequence[str]) -> DataConfig:
    """The data section alone, for looking at the tiles before a recipe is chosen."""
    return DataConfig.parse(parse_overrides(overrides).get("data", {}), source="--set data")


def _check_groups(config: RunConfig, devices: int) -> None:
    batch, group = int(config.train.batch), config.train.group
    if batch % (group * devices):
        raise RecipeError(
            f"train.batch: {batch} samples cannot be shared by {devices} devices in whole groups "
            f"of {group} (train.group); make it a multiple of {group * devices}."
        )
