"""After the last step of a head that tells whole images apart: results, model, predictions, report."""

from pathlib import Path
from typing import Any

import torch

from geodino.runs.finetune.classification.export import export
from geodino.runs.finetune.classification.results import (
    in_words,
    results_of,
    write_predictions_of,
)
from geodino.runs.finetune.classification.scene import ClassificationScene
from geodino.runs.finetune.finish import finished, trained_facts
from geodino.runs.finetune.scene import Trained
from geodino.runs.record import RunFolder, RunLog


def finish(
    scene: ClassificationScene,
    trained: Trained,
    folder: RunFolder,
    *,
    device: torch.device,
    log: RunLog,
) -> dict[str, Any]:
    """Measure the trained model, export it, write predictions and report; return what was found."""
    log.say("Measuring the best head on all test images.")
    results = results_of(scene, device=device)
    export(scene, results, folder, step=trained.step)
    write_predictions_of(results, folder)
    facts = {**trained_facts(trained), **results.facts}

    def draw() -> Path:
        from geodino.runs.finetune.classification.report import write_report  # plots load late

        return write_report(scene, facts, folder)

    return finished(folder, log, facts=facts, words=in_words(facts), draw=draw)
