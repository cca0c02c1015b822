"""What a map says about its making, and what lies beside it."""

from geodino.runs.mapping.about import Parts, map_tags
from geodino.runs.mapping.maps import Map
from geodino.runs.predict.job import PredictJob
from geodino.runs.predict.task import Task


def tags(one: Map, job: PredictJob, task: Task, committed: Parts) -> dict[str, str]:
    """Return the tags of a map: none of them depends on how the work was shared or interrupted."""
    found = map_tags([(one, committed)], command=job.command(), model=task.name, sha256=task.sha256)
    found["GEODINO_LICENSE"] = task.canopy.license
    if job.symmetries != "none":
        found["GEODINO_SYMMETRIES"] = job.symmetries
    return found


def finish(one: Map, job: PredictJob, task: Task) -> str:
    """Write what lies beside a map; return its path."""
    del job, task
    return str(one.path)
