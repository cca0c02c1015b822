"""What a job that maps says before and after."""

from collections.abc import Mapping, Sequence
from typing import Any

from geodino.runs.mapping.mosaic import counted
from geodino.runs.mapping.planned import Planned
from geodino.runs.record import RunLog

_SHOWS = 1.3
"""Seam score above which the squares of chips are seen."""


def job_card(planned: Sequence[Planned], *, model: str, group: int, output: str) -> dict[str, str]:
    """Return what will be made.

    Args:
        planned: of each raster.
        model: its name, and what it gives.
        group: chips that are computed together.
        output: what is written.
    """
    key = planned[0].key
    pixels = sum(one.pixels() for one in planned)
    seen = "" if key["gsd_m"] is None else f", seen at {key['gsd_m']:g} m"
    return {
        "rasters": f"{counted([one.source for one in planned])}, {pixels / 1e6:,.1f} Mpx{seen}",
        "model": model,
        "chips": f"{key['chip']} px with {key['overlap']} px in common, {group} at a time",
        "output": output,
    }


def show_card(card: Mapping[str, str], notes: Sequence[str], log: RunLog) -> None:
    """Say what will be made, and how files are read."""
    width = max(map(len, card))
    for name, value in card.items():
        log.say(f"  {name:<{width}}  {value}")
    for note in notes:
        log.say(f"  * {note}")


def tell_seams(facts: Mapping[str, Any], log: RunLog) -> None:
    """Say that the squares of chips show in a map, where they do, and what can be done."""
    score = facts.get("seam_score", 0.0)
    if score > _SHOWS:
        log.say(
            f"The squares of chips show: seam score {score:g}, 1 where they do not. What the model "
            "makes of a place depends on the rest of its chip. A larger --overlap, up to half a "
            "chip, lets chips fade over a longer way; compare also another --chip."
        )


def rate(facts: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
    """Return the facts of a job with its rate instead of its ``pixels``, where it had any."""
    told = dict(facts)
    pixels = told.pop("pixels", 0)
    if pixels:
        told["megapixels_per_second"] = round(pixels / 1e6 / seconds, 3)
    return {**told, "seconds": round(seconds, 1)}
