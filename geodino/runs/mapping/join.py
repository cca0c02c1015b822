"""Parts become files."""

import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from geodino.data.loader import default_threads
from geodino.errors import SourceError
from geodino.infer.seams import SeamSums
from geodino.io.cog.assemble import Assembled, assemble
from geodino.runs.mapping.about import Parts, committed_of, seams_of
from geodino.runs.mapping.job import MapJob
from geodino.runs.mapping.maps import JOB_TAG, Map


def join(
    maps: Sequence[Map],
    job: MapJob,
    *,
    tags: Callable[[Map, Parts], Mapping[str, str]],
    finish: Callable[[Map], object],
    whole: int = 0,
) -> dict[str, Any]:
    """Write the files; return what is to be told of them.

    Args:
        maps: whose parts are complete.
        job: what was asked.
        tags: of the files of a map.
        finish: writes what lies beside a map. The parts go last, so that a job interrupted
            meanwhile is known to be unfinished.

        whole: how many maps of the job were there before.

    Raises:
        SourceError: no raster has a valid pixel.
        RunError: supertiles are missing, or a file cannot be written.
    """
    seams, empty, written = SeamSums(), [], 0
    for one in maps:
        if not one.numbers:
            empty.append(one.source.path)
            continue
        committed = committed_of(one)
        if _assembled(one, tags(one, committed)):
            seams = seams + seams_of(committed)
            finish(one)
            written += 1
        else:
            empty.append(one.source.path)
        shutil.rmtree(one.parts)
    if empty and not written and not whole:
        raise SourceError(
            f"{empty[0]} has no valid pixel{' in the area' if job.aoi else ''}: there is nothing to "
            "map. Check its nodata value (geodino inspect), or --set data.nodata=ignore."
        )
    facts: dict[str, Any] = {"maps": written}
    if empty:
        facts["empty"] = empty
    if seams.score is not None:
        facts["seam_score"] = round(seams.score, 3)
    return facts


def _assembled(one: Map, tags: Mapping[str, str]) -> bool:
    """Write the layers of a map, the map itself last; without a valid pixel there is no file."""
    for layer in reversed(one.layers):
        made = assemble(
            one.parts,
            one.files[layer.name],
            layer,
            layout=one.layout,
            tags={**tags, JOB_TAG: one.identity},
            area_or_point=one.source.area_or_point,
            key=one.parts_key,
            allow=one.outside,
            threads=default_threads(),
        )
        if _is_empty(made):
            for path in one.files.values():
                path.unlink(missing_ok=True)
            return False
    return True


def _is_empty(made: Assembled) -> bool:
    return made.moments is not None and not np.any(made.moments.count)
