"""What a job that maps says before and after."""

from collections.abc import Mapping, Sequence
from typing import Any

from geodino.runs.record import RunLog


def show_card(card: Mapping[str, str], notes: Sequence[str], log: RunLog) -> None:
    """Say what will be made, and how files are read."""
    width = max(map(len, card))
    for name, value in card.items():
        log.say(f"  {name:<{width}}  {value}")
    for note in notes:
        log.say(f"  * {note}")


def rate(facts: Mapping[str, Any], *, seconds: float) -> dict[str, Any]:
    """Return the facts of a job with its rate instead of its ``pixels``, where it had any."""
    told = dict(facts)
    pixels = told.pop("pixels", 0)
    if pixels:
        told["megapixels_per_second"] = round(pixels / 1e6 / seconds, 3)
    return {**told, "seconds": round(seconds, 1)}
