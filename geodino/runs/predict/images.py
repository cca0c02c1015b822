"""Classes of whole images."""

import hashlib
import json
from dataclasses import dataclass

from geodino.errors import CheckpointError, RecipeError
from geodino.models.classification_folder import (
    FILES,
    LoadedClassification,
    load_classification,
)
from geodino.runs.models import tensors_hash
from geodino.runs.predict.base import Task, item_of, name_of, refuse_of_maps
from geodino.runs.predict.job import ANSWERS, PredictJob

_LIKELY = 0.5
"""Probability from which an image is said to have a class, where it may have several."""


@dataclass(frozen=True, kw_only=True)
class ImageTask(Task):
    """A model that tells whole images apart."""

    classification: LoadedClassification

    files = FILES
    title = "Classes of images"
    what = "classes of whole images"

    @classmethod
    def open(cls, model: str) -> "ImageTask":
        """Open MODEL.

        Raises:
            CheckpointError: there is no classification model there.
        """
        folder = FILES.place(model)
        if folder is None:
            raise CheckpointError(f"{model} holds no classification model.")
        loaded = load_classification(folder)
        weights = tensors_hash(loaded.model.state_dict())
        told = [loaded.model.kind, loaded.model.image_size, *loaded.classes]
        sha256 = hashlib.sha256(f"{weights} {json.dumps(told)}".encode()).hexdigest()
        return cls(classification=loaded, name=name_of(model), sha256=sha256, item=item_of(model))

    @property
    def loaded(self) -> LoadedClassification:
        """The model."""
        return self.classification

    @property
    def has_several(self) -> bool:
        """Whether an image may have several classes, or none."""
        return self.classification.model.kind == "multilabel"

    def least_score(self, wanted: float | None) -> float:
        """Return the probability from which an image has a class, where it may have several."""
        return _LIKELY if wanted is None else wanted

    def check(self, job: PredictJob) -> None:
        """Refuse maps, and what is asked of rasters that are cut into chips.

        Raises:
            RecipeError: what was asked, what can be, and what to change.
        """
        if job.out.suffix.lower() not in ANSWERS:
            raise RecipeError(
                f"--out {job.out}: {self.name} gives {self.what}, which are rows of a table: write "
                f"FILE{' or FILE'.join(ANSWERS)}."
            )
        refuse_of_maps(job, self.name, self.what)
        of_chips = {
            f"--gsd {job.gsd_m}": job.gsd_m is not None,
            f"--aoi {job.aoi}": job.aoi is not None,
            f"--mosaic {job.mosaic}": job.mosaic is not None,
            f"--chip {job.how.chip}": job.how.chip is not None,
            f"--overlap {job.overlap}": job.overlap is not None,
            "--shard": job.shard is not None,
            "--assemble": job.assemble,
            "--resume": job.resume,
        }
        for option, is_asked in of_chips.items():
            if is_asked:
                raise RecipeError(
                    f"{option} is of rasters that are looked at in parts, but {self.name} sees each "
                    "image whole. Leave it out."
                )
        if job.score is not None and not self.has_several:
            raise RecipeError(
                f"--score {job.score:g}: {self.name} gives every image one class. Leave it out: the "
                "table holds the probability of each."
            )
        if job.score is not None and not 0 < job.score < 1:
            raise RecipeError(f"--score {job.score:g}: choose a probability between 0 and 1.")
