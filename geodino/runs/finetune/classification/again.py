"""The report of a finished run of classification again, from what the run holds."""

from pathlib import Path

import torch

from geodino.io.raster import HandlePool
from geodino.runs.finetune.classification.prepare import read_prepared
from geodino.runs.finetune.classification.scene import look
from geodino.runs.record import RunFolder


def report_again(folder: RunFolder, *, device: torch.device, out: Path | None) -> Path:
    """Write the report of a finished run; scores and answers are those that were recorded.

    Args:
        folder: the run.
        device: unused, since nothing is predicted.
        out: another place for the page.

    Raises:
        GeodinoError: its images or model are others by now, or a file of it is missing or damaged.
    """
    from geodino.runs.finetune.classification.report import write_report  # plots load late

    with HandlePool() as pool:
        scene = look(read_prepared(folder, pool))
        return write_report(scene, folder.read_facts()["results"], folder, out=out)
