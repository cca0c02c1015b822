"""The report of a finished run of detection again; only its pictures are predicted."""

from dataclasses import replace
from pathlib import Path

import torch

from geodino.infer.search import BoxFinder
from geodino.models.detection_folder import load_detection
from geodino.runs.finetune.detection.results import Results, shown_keys
from geodino.runs.finetune.detection.scene import DetectionScene
from geodino.runs.record import RunFolder
from geodino.tasks.detection.judge import judged


def report_again(
    scene: DetectionScene, folder: RunFolder, *, device: torch.device, out: Path | None
) -> Path:
    """Write the report of a finished run; every score is the one that was recorded.

    Args:
        scene: of the run.
        folder: the run.
        device: where the pictured images are predicted.
        out: another place for the page.

    Raises:
        GeodinoError: a file of the run is missing or damaged.
    """
    from geodino.runs.finetune.detection.report import write_report  # plots load late

    facts = folder.read_facts()["results"]
    scene = replace(scene, network=load_detection(folder.model).model.to(device))
    shown = judged(
        BoxFinder(scene.network, device=device), scene.prepared.source, shown_keys(facts),
        scene.chips, iou=scene.joined_iou, device=device,
    )  # fmt: skip
    return write_report(scene, Results(facts=facts, shown=list(shown)), folder, out=out)
