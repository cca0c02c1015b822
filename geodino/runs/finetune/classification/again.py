"""The report of a finished run of classification again, from what the run holds."""

from pathlib import Path

import torch

from geodino.runs.finetune.classification.scene import ClassificationScene
from geodino.runs.record import RunFolder


def report_again(
    scene: ClassificationScene, folder: RunFolder, *, device: torch.device, out: Path | None
) -> Path:
    """Write the report of a finished run; scores and answers are those that were recorded.

    Args:
        scene: of the run.
        folder: the run.
        device: unused, since nothing is predicted.
        out: another place for the page.

    Raises:
        GeodinoError: a file of the run is missing or damaged.
    """
    from geodino.runs.finetune.classification.report import write_report  # plots load late

    return write_report(scene, folder.read_facts()["results"], folder, out=out)
