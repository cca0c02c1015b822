"""After the last step of a head that tells classes apart: results, model folder, report."""

from typing import Any

import torch

from geodino.errors import GeodinoError
from geodino.runs.finetune.scene import Trained
from geodino.runs.finetune.segmentation.export import export
from geodino.runs.finetune.segmentation.results import Results, in_words, results_of
from geodino.runs.finetune.segmentation.scene import SegmentationScene
from geodino.runs.record import RunFolder, RunLog


def finish(
    scene: SegmentationScene,
    trained: Trained,
    folder: RunFolder,
    *,
    device: torch.device,
    log: RunLog,
) -> dict[str, Any]:
    """Measure the trained model, export it, write the report; return what was found."""
    log.say("Measuring the best head on all labelled images.")
    with scene.readers() as threads:
        results = results_of(scene, threads, device=device)
    export(scene, results, folder, step=trained.step)
    facts = {
        "step": trained.step,
        "stopped_early": trained.stopped_early or None,
        **results.facts,
    }
    recorded = folder.read_facts()
    folder.write_facts({**recorded, "results": facts})
    for line in in_words(results):
        log.say(line)
    return {**facts, **_report(scene, results, folder, log)}


def _report(
    scene: SegmentationScene, results: Results, folder: RunFolder, log: RunLog
) -> dict[str, str]:
    """Write the report; the run is finished and saved whether it can be written or not."""
    from geodino.runs.finetune.segmentation.report import write_report  # plots load late

    try:
        path = write_report(scene, results, folder)
    except GeodinoError as error:
        log.say(f"The model is saved, but the report could not be written: {error}")
        return {}
    log.say(f"The report is {path}.")
    return {"report": str(path)}
