"""The report of a finished recalibration again; only its pictures are predicted."""

from pathlib import Path

import torch

from geodino.errors import RunError
from geodino.io.raster import HandlePool
from geodino.runs.finetune.canopy.again import results_again
from geodino.runs.recalibrate.fit import CURVE, BeforeAndAfter, Learnt, composed
from geodino.runs.recalibrate.job import Ground, look
from geodino.runs.recalibrate.prepare import read_prepared
from geodino.runs.record import RunFolder


def look_again(folder: RunFolder, pool: HandlePool) -> Ground:
    """Return what a recorded recalibration is made of.

    Raises:
        GeodinoError: its images, labels or model are others by now, or a file is missing or damaged.
    """
    return look(read_prepared(folder, pool))


def report_again(
    ground: Ground, folder: RunFolder, *, device: torch.device, out: Path | None
) -> Path:
    """Write the report of a finished recalibration; every score is the one that was recorded.

    Args:
        ground: what the run is made of.
        folder: the run.
        device: where the pictured areas are predicted.
        out: another place for the page.

    Raises:
        GeodinoError: a file of the run is missing or damaged.
    """
    from geodino.runs.recalibrate.report import write_report  # plots load late

    learnt = Learnt.load(folder.root)
    if learnt is None:
        raise RunError(
            f"{folder.root / CURVE} is missing: `geodino finetune canopy --resume` fits it again."
        )
    curve = composed(learnt.curve, ground.task)
    predictor = BeforeAndAfter(ground.task, curve, device=device)
    results = results_again(folder, ground.subject, predictor)
    return write_report(ground.prepared, learnt, results, folder, out=out)
