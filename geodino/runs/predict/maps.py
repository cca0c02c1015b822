"""The maps of a job: for each raster where it goes, how it is cut, and what identifies it."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from geodino import __version__
from geodino.errors import ContractError, RecipeError
from geodino.infer.cover import Cover
from geodino.infer.engine import Predictor
from geodino.infer.ground import Regrid
from geodino.infer.heights import HeightProduct
from geodino.infer.render import Rendering
from geodino.io.area import Area
from geodino.io.cog.layout import Layer, Layout
from geodino.io.cog.parts import parts_folder
from geodino.io.content import content_sample
from geodino.runs.predict.job import PredictJob
from geodino.runs.predict.task import Task
from geodino.runs.sources import Source

JOB_TAG = "GEODINO_JOB"
"""Tag that says which job made a map: a map of the same job need not be made again."""


@dataclass(frozen=True, kw_only=True)
class Map:
    """One raster and the map that is made of it."""

    source: Source
    path: Path
    rendering: Rendering
    numbers: tuple[int, ...]
    """Supertiles that hold anything wanted."""

    key: dict[str, Any]
    """What the pixels of the map depend on, beside those of the raster."""

    @property
    def parts(self) -> Path:
        """Where finished supertiles lie until the map is whole."""
        return parts_folder(self.path)

    @property
    def layer(self) -> Layer:
        """What is stored."""
        (layer,) = self.rendering.product.layers
        return layer

    @property
    def layout(self) -> Layout:
        """How it is cut."""
        return self.rendering.layout

    @property
    def outside(self) -> list[int]:
        """Supertiles that hold nothing wanted."""
        return sorted(set(range(len(self.layout))) - set(self.numbers))

    @property
    def identity(self) -> str:
        """A hash of the key: of the model, its chips, and what was asked."""
        return hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()

    @cached_property
    def content(self) -> str:
        """A cheap hash of the raster's files: it changes when one is written anew."""
        digest = hashlib.sha256()
        for path in self.source.files:
            digest.update(repr(content_sample(path)).encode())
        return digest.hexdigest()

    @property
    def pixels(self) -> int:
        """Pixels that will be gone through."""
        return sum(self.layout.window(number).area for number in self.numbers)


def plan(
    job: PredictJob,
    task: Task,
    sources: Sequence[Source],
    predictor: Predictor,
    *,
    device: torch.device,
) -> list[Map]:
    """Plan the map of each raster.

    Raises:
        RecipeError: several rasters for one file, or chips that do not fit the model.
        ContractError: a resolution is asked of a raster that has none.
        SourceError: the area cannot be read.
    """
    if len(sources) > 1 and not job.is_folder:
        raise RecipeError(
            f"{job.out} holds one map, but {len(sources)} rasters were named. Write a map for each "
            f"to a folder (--out {job.out.with_suffix('')})."
        )
    chip = task.chip(job.how.chip)
    facts = {
        "model": task.sha256,
        "version": __version__,
        "chip": chip,
        "overlap": task.overlap(job.overlap, chip=chip),
        "group": task.group(device, job, chip=chip),
        "gsd_m": task.gsd(job.gsd_m),
        "device": device.type,
        "symmetries": job.symmetries,
        "scale": job.how.scale,
        "bands": None if job.how.bands is None else list(job.how.bands),
        "data": list(job.overrides),
        "aoi": None if job.aoi is None else hashlib.sha256(job.aoi.read_bytes()).hexdigest(),
    }
    product = task.product(job)
    return [_map(job, source, predictor, product, facts, _file(job, source)) for source in sources]


def _file(job: PredictJob, source: Source) -> Path:
    return job.out / f"{source.name}.tif" if job.is_folder else job.out


def _map(
    job: PredictJob,
    source: Source,
    predictor: Predictor,
    product: HeightProduct,
    facts: dict[str, Any],
    path: Path,
) -> Map:
    grid, regrid = source.raster.grid, None
    if facts["gsd_m"] is not None:
        if grid.gsd_m is None:
            raise ContractError(
                f"{source.path} has no place on the Earth, so its pixels have no size: --gsd "
                "cannot be met. Give the raster its CRS and transform, or pass --gsd nothing."
            )
        regrid = Regrid.to_gsd(grid, facts["gsd_m"])
    seen = grid if regrid is None else regrid.model
    cover = Cover.of(
        seen.height,
        seen.width,
        chip=facts["chip"],
        overlap=facts["overlap"],
        align=predictor.align,
        group=facts["group"],
    )
    layout = Layout.plan(grid, product.layers)
    area = None if job.aoi is None else Area.on(job.aoi, grid)
    rendering = Rendering(
        raster=source.raster,
        predictor=predictor,
        product=product,
        cover=cover,
        layout=layout,
        regrid=regrid,
        wanted=None if area is None else area.inside,
    )
    numbers = [n for n in range(len(layout)) if area is None or area.touches(layout.window(n))]
    return Map(
        source=source,
        path=path,
        rendering=rendering,
        numbers=tuple(numbers),
        key={**facts, "seen": [seen.height, seen.width]},
    )


def share(maps: Sequence[Map], shard: tuple[int, int]) -> list[tuple[Map, list[int]]]:
    """Return the supertiles of a shard, map by map: a run of neighbours of all there are."""
    number, count = shard
    every = [(i, n) for i, found in enumerate(maps) for n in found.numbers]
    mine = every[len(every) * (number - 1) // count : len(every) * number // count]
    return [(found, [n for j, n in mine if j == i]) for i, found in enumerate(maps)]
