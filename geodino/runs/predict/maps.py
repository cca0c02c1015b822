"""The maps of a prediction."""

from collections.abc import Sequence

import torch

from geodino.infer.cover import chip_group
from geodino.infer.engine import Predictor
from geodino.runs.mapping.maps import Map, plan_map, refuse_several, shared_key
from geodino.runs.predict.job import PredictJob
from geodino.runs.predict.task import Task
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
        RecipeError: several rasters for one file, or chips that do not fit the model.
        ContractError: a resolution is asked of a raster that has none.
        SourceError: the area cannot be read.
    """
    refuse_several(job, sources)
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
    product = task.product(job.dtype, interval=job.interval)
    (layer,) = product.layers
    return [
        plan_map(
            job,
            source,
            predictor,
            product,
            files={layer.name: job.out / f"{source.name}.tif" if job.is_folder else job.out},
            key={**key, "symmetries": job.symmetries},
        )
        for source in sources
    ]
