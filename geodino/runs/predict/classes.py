"""Maps of classes."""

import json
from dataclasses import dataclass
from typing import Any

import torch

from geodino.data.labelled.class_files import CLASSES_TAG
from geodino.errors import CheckpointError, RecipeError
from geodino.infer.classes import CLASSES, ClassPredictor, ClassProduct
from geodino.infer.engine import Predictor
from geodino.io.category_names import write_category_names
from geodino.io.qml import write_class_style
from geodino.models.segmentation_folder import FILES, LoadedSegmentation, load_segmentation
from geodino.report.class_quicklook import write_class_quicklook
from geodino.runs.device import compute_type
from geodino.runs.mapping.maps import Map
from geodino.runs.models import tensors_hash
from geodino.runs.predict.base import Beside, MapTask, item_of, name_of
from geodino.runs.predict.job import PROBABILITY_TYPES, Storage
from geodino.runs.sources import Meeting


@dataclass(frozen=True, kw_only=True)
class ClassTask(MapTask):
    """A model that tells classes apart."""

    segmentation: LoadedSegmentation

    files = FILES
    title = "Classes"
    what = "a class for every pixel"
    units = ""

    @classmethod
    def open(cls, model: str) -> "ClassTask":
        """Open MODEL.

        Raises:
            CheckpointError: there is no segmentation model there.
        """
        folder = FILES.place(model)
        if folder is None:
            raise CheckpointError(f"{model} holds no segmentation model.")
        loaded = load_segmentation(folder)
        sha256 = tensors_hash(loaded.model.state_dict())
        return cls(segmentation=loaded, name=name_of(model), sha256=sha256, item=item_of(model))

    @property
    def loaded(self) -> LoadedSegmentation:
        """The model."""
        return self.segmentation

    def _predictor(self, device: torch.device, how: Meeting, *, applicability: bool) -> Predictor:
        if applicability:
            raise CheckpointError(
                f"--applicability: {self.name} gives classes, and keeps no features of its training "
                "ground. Leave it out."
            )
        dtype = compute_type(how.precision, device)
        return ClassPredictor(self.segmentation.model, device=device, scale=how.scale, dtype=dtype)

    def product(self, how: Storage) -> ClassProduct:
        """Return numbers of classes, and probabilities where they are asked for.

        Raises:
            RecipeError: a type that classes or probabilities are not stored in.
        """
        if how.dtype is None or (how.dtype == "uint8" and not how.probabilities):
            kind = "float32"
        elif not how.probabilities:
            raise RecipeError(
                f"--dtype {how.dtype}: classes are stored as uint8. It is for --probabilities."
            )
        elif how.dtype not in PROBABILITY_TYPES:
            known = " or ".join(PROBABILITY_TYPES)
            raise RecipeError(f"--dtype {how.dtype}: probabilities are stored as {known}.")
        else:
            kind = how.dtype
        return ClassProduct(
            classes=self.segmentation.classes,
            probabilities=PROBABILITY_TYPES[kind] if how.probabilities else None,
        )

    @property
    def tags(self) -> dict[str, str]:
        """The names of the classes."""
        return {CLASSES_TAG: json.dumps([one.name for one in self.segmentation.classes])}

    @property
    def attributes(self) -> dict[str, Any]:
        """Numbers and names, as CF has them."""
        names = [one.name for one in self.segmentation.classes]
        meanings = " ".join(name.replace(" ", "_") for name in names)
        return {"flag_values": list(range(len(names))), "flag_meanings": meanings}

    def beside(self, one: Map) -> Beside:
        """Write style, picture, and names for GDAL."""
        classes = self.segmentation.classes
        write_category_names(one.files[CLASSES], [known.name for known in classes])
        named = {i: (known.name, known.colour) for i, known in enumerate(classes)}
        values = [{"value": i, "name": known.name} for i, known in enumerate(classes)]
        return Beside(
            quicklook=write_class_quicklook(one.path, named),
            style=write_class_style(one.path, named),
            properties={"geodino:classes": values},
        )
