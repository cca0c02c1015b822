"""What a map of change says about its making and its values, and what lies beside it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from geodino import __version__
from geodino.io.item import item_path
from geodino.io.map_item import MapProduct, write_map_item
from geodino.io.metadata import open_raster
from geodino.io.qml import style_path, write_change_style
from geodino.report.quicklook import highest_shown_m, quicklook_path, write_quicklook
from geodino.runs.change.job import ChangeJob
from geodino.runs.change.pair import Pair
from geodino.runs.embed.model import EmbeddingModel
from geodino.runs.mapping.about import Parts, committed_of, map_tags
from geodino.runs.mapping.maps import Map

MEASURE = "1 - cosine of the patch tokens of both dates (cosine distance of frozen features)"

NOTE = (
    "season, sun and shadows, view angle, haze and sensor change features as well as the ground "
    "does: compare dates of one season, and read values against their distribution"
)

_LABEL = "change, 1 - cosine"
_LEAST = 0.05
"""Least change that the colours end at."""

_STEPS = 10_000
"""Steps of 1 that the distribution is counted in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Making:
    """What a map of change is made from."""

    job: ChangeJob
    pair: Pair
    model: EmbeddingModel


def tags(one: Map, of: Making, committed: Parts) -> dict[str, str]:
    """Return the tags of a map: none of them depends on how the work was shared or interrupted."""
    model, dates = of.model, (of.pair.before, of.pair.after)
    found = map_tags(
        [(one, committed)], command=of.job.command(), model=model.name, sha256=model.sha256
    )
    times = [date.time for date in dates if date.time is not None]
    if times:
        found["GEODINO_ACQUIRED"] = "/".join(times)
    found["GEODINO_PATCH_SIZE"] = str(one.stride)
    found["GEODINO_MEASURE"] = MEASURE
    return found


def beside(path: Path) -> list[Path]:
    """Return what is written beside a map."""
    return [item_path(path), style_path(path), quicklook_path(path)]


def finish(one: Map, of: Making) -> None:
    """Write what lies beside a map: its style, its picture and its STAC item."""
    about = tags(one, of, committed_of(one))
    score = about.get("GEODINO_SEAM_SCORE")
    highest = highest_shown_m(one.path, least_m=_LEAST)
    dates = one.source.origins
    write_map_item(
        MapProduct(
            path=one.path,
            title="Change of features",
            model=of.model.name,
            model_sha256=of.model.sha256,
            model_item=of.model.item,
            model_license=of.model.loaded.license,
            sources=tuple(date.path for date in dates),
            source_sha256=about["GEODINO_SOURCE_SHA256"],
            times=tuple(date.time for date in dates),
            software=__version__,
            command=about["GEODINO_COMMAND"],
            chip_size=one.key["chip"],
            overlap=one.key["overlap"],
            seam_score=None if score is None else float(score),
            quicklook=write_quicklook(one.path, highest_m=highest, label=_LABEL),
            style=write_change_style(one.path, highest=highest),
            more={
                "geodino:measure": MEASURE,
                "geodino:change": dict(distribution(one.path)),
                "geodino:note": NOTE,
            },
        )
    )


def distribution(path: Path) -> Mapping[str, float | int]:
    """Return how many patches of a map are valid, and percentiles of their change.

    Values are counted in steps of 0.0001, block by block: memory does not grow with the map. A
    percentile is the least value that no fewer than its share of the patches stay at or below.
    """
    counts = np.zeros(2 * _STEPS + 1, dtype=np.int64)
    with open_raster(str(path)) as found:
        scale = found.scales[0]
        for _, window in found.block_windows(1):
            values = found.read(1, window=window, masked=True).compressed()
            steps = np.rint(values.astype(np.float64) * scale * _STEPS).astype(np.int64)
            counts += np.bincount(steps, minlength=len(counts))
    total, upto = int(counts.sum()), np.cumsum(counts)
    shares = {"median": 50, "p95": 95, "p99": 99}
    places = {
        name: int(np.searchsorted(upto, -(-total * share // 100))) for name, share in shares.items()
    }
    return {"patches": total, **{name: place / _STEPS for name, place in places.items()}}
