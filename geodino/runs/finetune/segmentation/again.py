"""The report of a finished run of segmentation again; only its pictures are predicted."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from geodino.infer.classes import ClassPredictor
from geodino.models.segmentation_folder import load_segmentation
from geodino.runs.finetune.segmentation.results import SHOWN, Results
from geodino.runs.finetune.segmentation.scene import SegmentationScene
from geodino.runs.record import RunFolder
from geodino.tasks.segmentation.evaluate import Judged, cells_of, judged


def report_again(
    scene: SegmentationScene, folder: RunFolder, *, device: torch.device, out: Path | None
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
    from geodino.runs.finetune.segmentation.report import write_report  # plots load late

    facts = folder.read_facts()["results"]
    on = facts["reported_on"]
    scene = replace(scene, network=load_segmentation(folder.model).model.to(device))
    results = Results(
        facts=facts,
        confusion=np.array(facts[on]["confusion"], dtype=np.int64) if on else None,
        shown=_shown(scene, on, device=device) if on else [],
    )
    return write_report(scene, results, folder, out=out)


def _shown(scene: SegmentationScene, on: str, *, device: torch.device) -> list[Judged]:
    """Predict the first labelled part of each of the first images that are reported."""
    source = scene.prepared.source
    cells = cells_of(source, "test" if on == "test" else "val")
    predictor = ClassPredictor(scene.network, device=device)
    shown: dict[str, Judged] = {}
    with scene.readers() as threads:
        for cell in cells:
            if len(shown) == SHOWN:
                break
            if cell.key not in shown:
                for one in judged(source, [cell], predictor, scene.chips, threads=threads):
                    shown[cell.key] = one
    return list(shown.values())
