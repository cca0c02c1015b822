"""What a map says about its making, and what lies beside it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from geodino import __version__
from geodino.infer.seams import SeamSums
from geodino.io.cog.journal import Committed, read_parts
from geodino.runs.predict.job import PredictJob
from geodino.runs.predict.maps import Map
from geodino.runs.predict.task import Task


def committed_of(one: Map) -> dict[int, Committed]:
    """Return the finished supertiles of a map, by number."""
    found = {part.number: part for part, _ in read_parts(one.parts)}
    return {number: found[number] for number in sorted(found)}


def tags(
    one: Map, job: PredictJob, task: Task, committed: Mapping[int, Committed]
) -> dict[str, str]:
    """Return the tags of a map: none of them depends on how the work was shared or interrupted."""
    digest = hashlib.sha256()
    for number in one.numbers:
        if number in committed:
            digest.update(f"{number} {committed[number].digest}\n".encode())
    seams = sum((SeamSums(**c.facts["seams"]) for c in committed.values()), SeamSums())
    found = {
        "GEODINO_VERSION": __version__,
        "GEODINO_COMMAND": job.command(),
        "GEODINO_MODEL": task.name,
        "GEODINO_MODEL_SHA256": task.sha256,
        "GEODINO_LICENSE": task.canopy.license,
        "GEODINO_SOURCE": Path(one.source.path).name,
        "GEODINO_SOURCE_SHA256": digest.hexdigest(),
        "GEODINO_CHIP_SIZE": str(one.key["chip"]),
        "GEODINO_OVERLAP": str(one.key["overlap"]),
    }
    if one.source.time is not None:
        found["GEODINO_ACQUIRED"] = one.source.time
    if one.rendering.regrid is not None:
        found["GEODINO_GSD"] = f"{one.key['gsd_m']:g}"
    if job.symmetries != "none":
        found["GEODINO_SYMMETRIES"] = job.symmetries
    if seams.score is not None:
        found["GEODINO_SEAM_SCORE"] = f"{seams.score:.4f}"
    return found


def finish(one: Map, job: PredictJob, task: Task) -> str:
    """Write what lies beside a map; return its path."""
    del job, task
    return str(one.path)
