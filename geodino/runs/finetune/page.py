"""What the reports of all runs that learn from labels share."""

from pathlib import Path
from typing import Any

from geodino.data.labelled.sets import parts_in_words
from geodino.files import write_text
from geodino.report.content import Pairs, Repeat
from geodino.runs.finetune.labelled import PreparedLabelled
from geodino.runs.finetune.prepared import PreparedFinetune
from geodino.runs.record import RunFolder
from geodino.runs.repeat import repeat_of


def write_page(folder: RunFolder, page: str, *, out: Path | None) -> Path:
    """Write ``report.html`` of a run, or another file; return where it is.

    Raises:
        GeodinoError: it cannot be written.
    """
    path = folder.report if out is None else out
    write_text(path, page)
    return path


def labelled_set(prepared: PreparedLabelled[Any, Any]) -> Pairs:
    """Return where a labelled set comes from and how it is cut into parts, as rows."""
    return (
        ("images", prepared.images_from),
        ("labels", f"{prepared.labels_from} ({prepared.data.layout})"),
        ("split", prepared.split_from or "see the notes"),
        ("images by part", parts_in_words(prepared.data.set.parts)),
    )


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
