"""What the end of every run of fine-tuning shares: its record, its report, how it is repeated."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from geodino.errors import GeodinoError
from geodino.report.content import Repeat
from geodino.runs.finetune.prepared import PreparedFinetune
from geodino.runs.finetune.scene import Trained
from geodino.runs.record import RunFolder, RunLog
from geodino.runs.repeat import repeat_of


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


def repeated(task: str, prepared: PreparedFinetune[Any], folder: RunFolder) -> Repeat:
    """Return how a run of a task is made again."""
    recorded, start = folder.read_facts(), prepared.config.start
    split = str(folder.split) if folder.split.exists() else prepared.split_from
    given = {
        "--images": prepared.images_from,
        "--labels": prepared.labels_from,
        "--model": start.model if start else "MODEL",
        "--recipe": str(folder.recipe),
        "--split": split,
        "--out": "NEW_RUN",
    }
    options = [word for pair in given.items() if pair[1] for word in pair if word is not None]
    return repeat_of(
        folder,
        recorded,
        again=["finetune", task, *options],
        facts=(
            ("images, labels, split", f"SHA-256 {prepared.fingerprint}"),
            ("seed", str(recorded["seed"])),
            ("started from", f"{start.name}, SHA-256 {start.sha256}" if start else "unknown"),
            ("commit", recorded["commit"] or "an installed package"),
        ),
    )
