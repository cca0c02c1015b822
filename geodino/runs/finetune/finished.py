"""What can be done with a finished run that learnt from labels: one row for each kind of recipe."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from geodino.errors import RunError
from geodino.io.raster import HandlePool
from geodino.models.canopy_folder import FILES as CANOPY
from geodino.models.classification_folder import FILES as CLASSIFICATION
from geodino.models.detection_folder import FILES as DETECTION
from geodino.models.head_folder import HeadFiles
from geodino.models.segmentation_folder import FILES as SEGMENTATION
from geodino.runs.finetune.canopy.again import report_again as canopy_again
from geodino.runs.finetune.canopy.config import CanopyFinetuneConfig
from geodino.runs.finetune.classification.again import report_again as classification_again
from geodino.runs.finetune.classification.config import ClassificationFinetuneConfig
from geodino.runs.finetune.config import LabelledConfig
from geodino.runs.finetune.deliver import export_headed
from geodino.runs.finetune.detection.again import report_again as detection_again
from geodino.runs.finetune.detection.config import DetectionFinetuneConfig
from geodino.runs.finetune.segmentation.again import report_again as segmentation_again
from geodino.runs.finetune.segmentation.config import SegmentationFinetuneConfig
from geodino.runs.finetune.tasks import TASKS
from geodino.runs.recalibrate.again import look_again
from geodino.runs.recalibrate.again import report_again as recalibration_again
from geodino.runs.recalibrate.config import RecalibrateConfig
from geodino.runs.record import RunFolder

Scene = Callable[[RunFolder, HandlePool], Any]
"""Returns what a recorded run is made of."""

Again = Callable[..., Path]
"""Writes the report of a finished run again: (scene, folder, device=, out=) to where it is."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """What a kind of run leaves behind."""

    config: type[LabelledConfig]
    task: str
    """As ``geodino finetune`` calls it."""

    head: HeadFiles
    """What its model folder holds beside the backbone."""

    scene: Scene
    report: Again


def _of_task(task: str) -> Scene:
    row = TASKS[task]
    return lambda folder, pool: row.look(row.read(folder, pool))


FINISHED = (
    Finished(
        config=CanopyFinetuneConfig,
        task="canopy",
        head=CANOPY,
        scene=_of_task("canopy"),
        report=canopy_again,
    ),
    Finished(
        config=RecalibrateConfig,
        task="canopy",
        head=CANOPY,
        scene=look_again,
        report=recalibration_again,
    ),
    Finished(
        config=SegmentationFinetuneConfig,
        task="segmentation",
        head=SEGMENTATION,
        scene=_of_task("segmentation"),
        report=segmentation_again,
    ),
    Finished(
        config=ClassificationFinetuneConfig,
        task="classification",
        head=CLASSIFICATION,
        scene=_of_task("classification"),
        report=classification_again,
    ),
    Finished(
        config=DetectionFinetuneConfig,
        task="detection",
        head=DETECTION,
        scene=_of_task("detection"),
        report=detection_again,
    ),
)
"""Every kind of run that learns from labels. How its head is exported stands in ``deliver``."""


def report_finished(
    folder: RunFolder, config: LabelledConfig, *, device: torch.device, out: Path | None
) -> Path:
    """Write the report of a run again; return where it is.

    Raises:
        RunError: it has not finished.
        GeodinoError: what it began with is gone or changed, or one of its files is damaged.
    """
    row = _finished(folder, config, "to report")
    with HandlePool() as pool:
        return row.report(row.scene(folder, pool), folder, device=device, out=out)


def export_finished(
    folder: RunFolder, config: LabelledConfig, *, to: str, out: Path | None
) -> dict[str, Any]:
    """Write the model of a run in another form.

    Raises:
        RunError: it has not finished.
        GeodinoError: the form has no place for it, or one of its files is damaged.
    """
    _finished(folder, config, "to export")
    return export_headed(folder.root, to=to, out=out)


def _finished(folder: RunFolder, config: LabelledConfig, why: str) -> Finished:
    row = next(row for row in FINISHED if row.config is type(config))
    if "results" not in folder.read_facts() or not row.head.are_in(folder.model):
        raise RunError(
            f"{folder.root} has not finished: there is nothing {why}. `geodino finetune {row.task} "
            "--resume` goes on with it."
        )
    return row
