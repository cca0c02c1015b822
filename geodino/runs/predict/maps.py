"""The maps of a prediction."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from geodino.errors import RecipeError
from geodino.infer.cover import chip_group
from geodino.infer.engine import Predictor
from geodino.infer.render import Product
from geodino.io.item import item_path
from geodino.runs.mapping.maps import Map, plan_map, refuse_turned, shared_key
from geodino.runs.predict.base import Task
from geodino.runs.predict.job import PredictJob
from geodino.runs.sources import Source


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
        RecipeError: chips that do not fit the model, or a store of what none can hold.
        ContractError: a resolution is asked of a raster that has none.
        SourceError: the area cannot be read.
    """
    refuse_turned(job, sources)
    if job.is_store and not task.has_store:
        raise RecipeError(
            f"--out {job.out}: maps of classes are written as GeoTIFFs (FILE.tif, or a folder)."
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
