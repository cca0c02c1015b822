"""The maps of a prediction."""

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from geodino.infer.cover import chip_group
from geodino.infer.render import Product
from geodino.io.cog.layout import Layer
from geodino.io.item import item_path
from geodino.runs.mapping.about import Parts
from geodino.runs.mapping.join import join
from geodino.runs.mapping.maps import Map, plan_map, refuse_turned, shared_key
from geodino.runs.mapping.parts import Room, check_parts, is_done, render
from geodino.runs.mapping.show import job_card
from geodino.runs.predict.about import dissimilar_share, finish, tags
from geodino.runs.predict.base import MapTask
from geodino.runs.predict.job import PredictJob
from geodino.runs.predict.store import join_store
from geodino.runs.sources import Source


@dataclass(frozen=True, kw_only=True, slots=True)
class Maps:
    """A map of each raster of a job."""

    job: PredictJob
    task: MapTask
    maps: tuple[Map, ...]
    notes: tuple[str, ...] = ()
    """What the user should know of how they are made."""

    @classmethod
    def plan(
        cls, job: PredictJob, task: MapTask, sources: Sequence[Source], *, device: torch.device
    ) -> "Maps":
        """Plan them; errors are those of :func:`plan`."""
        return cls(job=job, task=task, maps=tuple(plan(job, task, sources, device=device)))

    def card(self) -> dict[str, str]:
        """Say what will be made."""
        first = self.maps[0]
        layout = first.layout
        pixels = sum(one.pixels() for one in self.maps)
        size = pixels * sum(layer.pixel_bytes for layer in first.layers) / 2**20
        part = min(layout.side, max(layout.grid.height, layout.grid.width))
        return job_card(
            self.maps,
            model=f"{self.task.name}: {self.task.what}; licence {self.task.license}",
            group=first.rendering.cover.group,
            output=f"{'; '.join(map(_bands, first.layers))}; at most {size:,.1f} MiB before "
            f"compression, written in parts of {part} px",
        )

    def write(self, threads: Executor) -> dict[str, Any]:
        """Render what is left, and join it to maps; return what is to be told.

        Raises:
            SourceError: a block cannot be read, or no raster has a valid pixel.
            RunError: the output exists or cannot be written, or memory does not suffice.
        """
        job = self.job
        left = [one for one in self.maps if not is_done(one, job)]
        check_parts(left, job)
        pixels = 0 if job.assemble else render(left, job, threads, room=Room(job))
        return {**self._joined(left), "pixels": pixels}

    def _joined(self, left: Sequence[Map]) -> dict[str, Any]:
        """Write the files of maps whose parts are complete, unless this job is a shard."""
        job, task = self.job, self.task
        if job.shard is not None:
            return {}
        if job.is_store:
            return join_store(left[0], job, task) if left else {"maps": 0}
        made: list[Parts] = []

        def described(one: Map, committed: Parts) -> dict[str, str]:
            made.append(committed)
            return tags(one, job, task, committed)

        whole = len(self.maps) - len(left)
        facts = join(
            left, job, tags=described, finish=lambda one: finish(one, job, task), whole=whole
        )
        share = dissimilar_share(made)
        return facts if share is None else {**facts, "dissimilar_share": round(share, 4)}


def plan(
    job: PredictJob, task: MapTask, sources: Sequence[Source], *, device: torch.device
) -> list[Map]:
    """Plan the map of each raster.

    Raises:
        CheckpointError: the model does not know how far ground is from its training ground.
        RecipeError: chips that do not fit the model.
        ContractError: a resolution is asked of a raster that has none.
        SourceError: the area cannot be read.
    """
    refuse_turned(job, sources)
    predictor = task.predictor(
        device, job.how, symmetries=job.symmetries, applicability=job.applicability
    )
    chip = task.chip(job.how.chip)
    key = shared_key(
        job,
        model=task.sha256,
        chip=chip,
        overlap=task.overlap(job.overlap, chip=chip),
        group=chip_group(job.how.batch, chip=chip, device=device),
        gsd_m=task.gsd(job.gsd_m),
        device=device,
    )
    product = task.product(job.storage)
    own = {
        "storage": asdict(job.storage),
        "symmetries": job.symmetries,
        "applicability": task.applicability_sha256() if job.applicability else None,
    }
    return [
        plan_map(
            job,
            source,
            predictor,
            product,
            files=_files(product, job.out / f"{source.name}.tif" if job.is_folder else job.out),
            beside=[item_path(job.out)] if job.is_store else [],
            key={**key, **own},
        )
        for source in sources
    ]


def _files(product: Product, path: Path) -> dict[str, Path]:
    """Return where each layer goes: the first is the map, others lie beside it under their names."""
    first, *others = (layer.name for layer in product.layers)
    beside = {name: path.with_name(f"{path.stem}.{name}{path.suffix}") for name in others}
    return {first: path, **beside}


def _bands(layer: Layer) -> str:
    return f"{layer.dtype}, {', '.join(layer.descriptions)}"
