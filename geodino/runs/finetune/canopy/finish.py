"""After the last step of a head for canopy heights: results, model folder, report."""

from pathlib import Path
from typing import Any

import torch

from geodino.infer.heights import HeightPredictor
from geodino.runs.finetune.canopy.export import export
from geodino.runs.finetune.canopy.results import results_of
from geodino.runs.finetune.canopy.scene import CanopyScene
from geodino.runs.finetune.canopy.words import in_words
from geodino.runs.finetune.finish import finished, trained_facts
from geodino.runs.finetune.scene import Trained
from geodino.runs.record import RunFolder, RunLog


def finish(
    scene: CanopyScene, trained: Trained, folder: RunFolder, *, device: torch.device, log: RunLog
) -> dict[str, Any]:
    """Measure the trained model, export it, write the report; return what was found."""
    log.say("Measuring the best head on all labelled areas.")
    with scene.readers() as threads:
        predictor = HeightPredictor(scene.canopy, device=device)
        results = results_of(scene.subject, predictor, threads)
    export(scene, results, folder, step=trained.step)

    def draw() -> Path:
        from geodino.runs.finetune.canopy.report import write_report  # plots load late

        return write_report(scene, results, folder)

    facts = {**trained_facts(trained), **results.facts}
    return finished(folder, log, facts=facts, words=in_words(results), draw=draw)
