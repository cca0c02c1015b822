"""What a map says about its making, and what lies beside it."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from geodino import __version__
from geodino.infer.heights import DISSIMILAR
from geodino.io.map_item import MapProduct, write_map_item
from geodino.runs.mapping.about import Parts, committed_of, counts_of, map_tags
from geodino.runs.mapping.maps import Map
from geodino.runs.predict.base import MapTask
from geodino.runs.predict.job import PredictJob


def tags(one: Map, job: PredictJob, task: MapTask, committed: Parts) -> dict[str, str]:
    """Return the tags of a map: none of them depends on how the work was shared or interrupted."""
    found = map_tags([(one, committed)], command=job.command(), model=task.name, sha256=task.sha256)
    found["GEODINO_LICENSE"] = task.license
    found |= task.tags
    if job.symmetries != "none":
        found["GEODINO_SYMMETRIES"] = job.symmetries
    if job.applicability:
        found["GEODINO_DISSIMILARITY"] = DISSIMILAR
        share = dissimilar_share([committed])
        if share is not None:
            found["GEODINO_DISSIMILAR_SHARE"] = f"{share:.6f}"
    return found


def dissimilar_share(made: Iterable[Parts]) -> float | None:
    """Return the share of valid pixels that are further than 1 from known ground.

    None where no pixel is valid, or distances were not asked for.
    """
    counts = sum((counts_of(committed) for committed in made), Counter[str]())
    return counts["far"] / counts["valid"] if counts["valid"] else None


def finish(one: Map, job: PredictJob, task: MapTask) -> None:
    """Write what lies beside a map: its style, its picture and its STAC item.

    Args:
        one: the map, whose file is written.
        job: what was asked.
        task: the model.
    """
    beside = task.beside(one)
    product = product_of(one, job, task, tags(one, job, task, committed_of(one)))
    more = {**product.more, **beside.properties}
    write_map_item(replace(product, quicklook=beside.quicklook, style=beside.style, more=more))


def product_of(one: Map, job: PredictJob, task: MapTask, about: Mapping[str, str]) -> MapProduct:
    """Return what the item of a map says.

    Args:
        one: the map.
        job: what was asked.
        task: the model.
        about: its tags.
    """
    score = about.get("GEODINO_SEAM_SCORE")
    more: dict[str, Any] = {}
    if job.symmetries != "none":
        more["geodino:symmetries"] = job.symmetries
    if job.applicability:
        more["geodino:dissimilarity"] = DISSIMILAR
        more["geodino:dissimilar_share"] = float(about.get("GEODINO_DISSIMILAR_SHARE", 0))
    return MapProduct(
        path=one.path,
        title=task.title,
        model=task.name,
        model_sha256=task.sha256,
        model_item=task.item,
        model_license=task.license,
        sources=(one.source.path,),
        source_sha256=about["GEODINO_SOURCE_SHA256"],
        times=(one.source.time,),
        software=__version__,
        command=about["GEODINO_COMMAND"],
        chip_size=one.key["chip"],
        overlap=one.key["overlap"],
        seam_score=None if score is None else float(score),
        more=more,
    )
