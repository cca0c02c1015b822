"""Objects in rasters."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from geodino.errors import CheckpointError, RecipeError
from geodino.infer.search import BoxFinder
from geodino.io.object_table import FORMATS
from geodino.models.detection_folder import FILES, LoadedDetection, load_detection
from geodino.runs.device import compute_type
from geodino.runs.models import tensors_hash
from geodino.runs.predict.base import Task, item_of, name_of, refuse_of_maps
from geodino.runs.predict.job import PredictJob
from geodino.runs.sources import Meeting


@dataclass(frozen=True, kw_only=True)
class BoxTask(Task):
    """A model that finds objects."""

    detection: LoadedDetection

    files = FILES
    title = "Objects"
    what = "boxes of objects"

    @classmethod
    def open(cls, model: str) -> "BoxTask":
        """Open MODEL.

        Raises:
            CheckpointError: there is no detection model there.
        """
        folder = FILES.place(model)
        if folder is None:
            raise CheckpointError(f"{model} holds no detection model.")
        loaded = load_detection(folder)
        weights = tensors_hash(loaded.model.state_dict())
        told = [loaded.model.config.model_dump(mode="json"), *loaded.classes]
        sha256 = hashlib.sha256(f"{weights} {json.dumps(told)}".encode()).hexdigest()
        return cls(detection=loaded, name=name_of(model), sha256=sha256, item=item_of(model))

    @property
    def loaded(self) -> LoadedDetection:
        """The model."""
        return self.detection

    @property
    def classes(self) -> Sequence[str]:
        """Names, by number."""
        return self.detection.classes

    @property
    def iou(self) -> float:
        """Of boxes of one class that overlap by more, the surest stays."""
        return self.detection.model.config.box_iou

    def check(self, job: PredictJob) -> None:
        """Refuse maps, and what is asked of them.

        Raises:
            RecipeError: what was asked, what can be, and what to change.
        """
        if job.out.suffix.lower() not in FORMATS:
            raise RecipeError(
                f"--out {job.out}: {self.name} finds objects, which are rows of a table: write "
                f"FILE{' or FILE'.join(FORMATS)}."
            )
        refuse_of_maps(job, self.name, "objects")
        self.least_score(job.score)

    def least_score(self, wanted: float | None) -> float:
        """Return the score that objects must have.

        Raises:
            RecipeError: the model says no box that is so unsure, or nothing can be so sure.
        """
        least = self.detection.model.config.least_score
        if wanted is None:
            own = self.detection.extra.get("score")
            return max(least, float(own)) if isinstance(own, int | float) else least
        if not least <= wanted <= 1:
            raise RecipeError(
                f"--score {wanted:g}: {self.name} says boxes of a score from {least:g} to 1. Choose "
                "one between them."
            )
        return wanted

    def finder(self, device: torch.device, how: Meeting, *, least_score: float) -> BoxFinder:
        """Return the model on its device."""
        return BoxFinder(
            self.detection.model,
            device=device,
            scale=how.scale,
            dtype=compute_type(how.precision, device),
            least_score=least_score,
        )
