"""How a recorded run is made again: the last part of every report."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from geodino.errors import RunError
from geodino.report.content import Pairs, Repeat
from geodino.runs.record import RunFolder


def repeat_of(
    folder: RunFolder, recorded: dict[str, Any], *, again: Sequence[str], facts: Pairs
) -> Repeat:
    """Return what repeats a run.

    Args:
        folder: of the run.
        recorded: its run.json.
        again: words of the command after ``geodino`` that makes it from the record.
        facts: what it was made from.

    Raises:
        RunError: its model folder is damaged.
    """
    return Repeat(
        commands=(
            f"{recorded['command']}    # as it was run",
            f"{shlex.join(['geodino', *again])}    # the same, from the record",
        ),
        facts=facts,
        versions=(
            ("geodino", recorded["geodino"]),
            ("Python", recorded["python"]),
            *recorded["versions"].items(),
        ),
        recipe=folder.recipe.read_text(encoding="utf-8"),
        license=license_words(folder.model / "config.json"),
    )


def license_words(path: Path) -> str:
    """Return licence and lineage of the weights, from the config of a model folder.

    Raises:
        RunError: it is damaged.
    """
    if not path.is_file():
        return "No model has been exported yet; its licence will be written into its folder."
    try:
        ours = json.loads(path.read_text(encoding="utf-8"))["geodino"]
        license, lineage = ours["license"], ours["lineage"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise RunError(
            f"{path} is damaged ({error}): `geodino export {path.parent.parent}` writes it again."
        ) from error
    parents = "; ".join(
        f"{parent['relation']} {parent['name']} ({parent['license'] or 'licence unknown'})"
        for parent in lineage
    )
    origin = parents or "trained from scratch: no other weights went in"
    return f"The weights in model/ carry the licence {license}. Lineage: {origin}."
