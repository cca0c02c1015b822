"""After the last step of a detector: results, model folder, report."""

from pathlib import Path
from typing import Any

import torch

from geodino.runs.finetune.detection.export import export
from geodino.runs.finetune.detection.results import in_words, results_of
from geodino.runs.finetune.detection.scene import DetectionScene
from geodino.runs.finetune.finish import finished, trained_facts
from geodino.runs.finetune.scene import Trained
from geodino.runs.record import RunFolder, RunLog


def finish(
    scene: DetectionScene, trained: Trained, folder: RunFolder, *, device: torch.device, log: RunLog
) -> dict[str, Any]:
    """Measure the trained model, export it, write the report; return what was found."""
    log.say("Measuring the best head on all labelled images.")
    results = results_of(scene, device)
    export(scene, results, folder, step=trained.step)

    def draw() -> Path:
        from geodino.runs.finetune.detection.report import write_report  # plots load late

        return write_report(scene, results, folder)

    facts = {**trained_facts(trained), **results.facts}
    return finished(folder, log, facts=facts, words=in_words(results), draw=draw)
