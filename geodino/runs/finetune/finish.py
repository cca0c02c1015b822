"""What the end of every run of fine-tuning shares: its record, its words, its report."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geodino.errors import GeodinoError
from geodino.runs.finetune.scene import Trained
from geodino.runs.record import RunFolder, RunLog


def trained_facts(trained: Trained) -> dict[str, Any]:
    """Return what the training itself adds to the results."""
    return {"step": trained.step, "stopped_early": trained.stopped_early or None}


def finished(
    folder: RunFolder,
    log: RunLog,
    *,
    facts: Mapping[str, Any],
    words: Sequence[str],
    draw: Callable[[], Path],
) -> dict[str, Any]:
    """Record results, say them, write the report; return what was found.

    The run is finished and saved whether its report can be written or not.

    Args:
        folder: of the run; its model is there.
        log: for people.
        facts: the results, as run.json keeps them.
        words: the same for people.
        draw: writes the report; returns where.
    """
    folder.write_facts({**folder.read_facts(), "results": dict(facts)})
    for line in words:
        log.say(line)
    try:
        path = draw()
    except GeodinoError as error:
        log.say(f"The model is saved, but the report could not be written: {error}")
        return dict(facts)
    log.say(f"The report is {path}.")
    return {**facts, "report": str(path)}
