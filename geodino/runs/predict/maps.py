"""The maps of a prediction."""

from collections.abc import Sequence

import torch

from geodino.infer.engine import Predictor
from geodino.io.item import item_path
from geodino.runs.mapping.chips import chip_group
from geodino.runs.mapping.maps import Map, plan_map, refuse_several, refuse_turned, shared_key
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
    refuse_turned(job, sources)
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
    product = task.product(job.dtype, interval=job.interval, applicability=job.applicability)
    own = {
        "dtype": job.dtype,
        "symmetries": job.symmetries,
        "interval": job.interval,
        "applicability": task.applicability_sha256() if job.applicability else None,
    }
    (layer,) = product.layers
    return [
        plan_map(
            job,
            source,
            predictor,
            product,
            files={layer.name: job.out / f"{source.name}.tif" if job.is_folder else job.out},
            beside=[item_path(job.out)] if job.is_store else [],
            key={**key, **own},
        )
        for source in sources
    ]
