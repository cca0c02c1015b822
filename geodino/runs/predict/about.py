"""What a map says about its making, and what lies beside it."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from geodino import __version__
from geodino.infer.seams import SeamSums
from geodino.io.cog.journal import Committed, read_parts
from geodino.io.map_item import MapProduct, write_map_item
from geodino.io.qml import write_height_style
from geodino.report.quicklook import highest_shown_m, write_quicklook
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


def finish(one: Map, job: PredictJob, task: Task, about: Mapping[str, str]) -> None:
    """Write what lies beside a map: its style, its picture and its STAC item.

    Args:
        one: the map, whose file is written.
        job: what was asked.
        task: the model.
        about: the tags of the map.
    """
    highest = highest_shown_m(one.path)
    score = about.get("GEODINO_SEAM_SCORE")
    more = {"geodino:symmetries": job.symmetries} if job.symmetries != "none" else {}
    write_map_item(
        MapProduct(
            path=one.path,
            title="Canopy height",
            model=task.name,
            model_sha256=task.sha256,
            model_item=task.item,
            model_license=task.canopy.license,
            sources=(one.source.path,),
            source_sha256=about["GEODINO_SOURCE_SHA256"],
            times=(one.source.time,),
            software=__version__,
            command=about["GEODINO_COMMAND"],
            chip_size=one.key["chip"],
            overlap=one.key["overlap"],
            seam_score=None if score is None else float(score),
            quicklook=write_quicklook(one.path, highest_m=highest),
            style=write_height_style(one.path, highest_m=highest),
            more=more,
        )
    )
