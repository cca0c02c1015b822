"""What a map says about its making, and what lies beside it."""

from geodino import __version__
from geodino.io.map_item import MapProduct, write_map_item
from geodino.runs.mapping.about import Parts, committed_of, map_tags
from geodino.runs.mapping.maps import Map
from geodino.runs.predict.base import Task
from geodino.runs.predict.job import PredictJob


def tags(one: Map, job: PredictJob, task: Task, committed: Parts) -> dict[str, str]:
    """Return the tags of a map: none of them depends on how the work was shared or interrupted."""
    found = map_tags([(one, committed)], command=job.command(), model=task.name, sha256=task.sha256)
    found["GEODINO_LICENSE"] = task.license
    found |= task.tags
    if job.symmetries != "none":
        found["GEODINO_SYMMETRIES"] = job.symmetries
    return found


def finish(one: Map, job: PredictJob, task: Task) -> None:
    """Write what lies beside a map: its style, its picture and its STAC item.

    Args:
        one: the map, whose file is written.
        job: what was asked.
        task: the model.
    """
    about = tags(one, job, task, committed_of(one))
    beside = task.beside(one)
    score = about.get("GEODINO_SEAM_SCORE")
    more = dict(beside.properties)
    if job.symmetries != "none":
        more["geodino:symmetries"] = job.symmetries
    write_map_item(
        MapProduct(
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
            quicklook=beside.quicklook,
            style=beside.style,
            more=more,
        )
    )
