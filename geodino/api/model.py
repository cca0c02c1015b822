"""What ``geodino.load`` returns: a model that turns paths and arrays into features and maps."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from os import PathLike
from typing import TYPE_CHECKING

from geodino.errors import CheckpointError
from geodino.models.folder import LoadedModel
from geodino.runs.embed import embed_image
from geodino.runs.embed.model import EmbeddingModel
from geodino.runs.models import OpenedModel, open_model
from geodino.runs.predict import MapTask, Task, predict_image, task_within
from geodino.runs.sources import Meeting

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Model(LoadedModel):
    """A model in memory, and where it came from."""

    source: OpenedModel
    """Its name, the hash of its weights, and where it came from."""

    task: Task | None = None
    """Its head, on the same backbone; None for a backbone alone."""

    def embed(
        self,
        image: "str | PathLike[str] | xarray.DataArray",
        *,
        bands: Sequence[str | int] | None = None,
        scale: float | None = None,
        accept: Sequence[str] = (),
        gsd_m: float | None = None,
        chip: int | None = None,
        overlap: int | None = None,
        batch: int | None = None,
        precision: str = "auto",
        device: str = "auto",
    ) -> "xarray.DataArray":
        """Return dense features of a raster or an array of pixels, in memory.

        Args:
            image: a raster, or a DataArray (band, y, x) of stored values.
            bands: what to read in the model's order: names, or numbers (the first is 1).
            scale: what stored values are multiplied by before the model.
            accept: differences from the training data to take as they are: ``gsd``, ``units``,
                ``values``.
            gsd_m: metres per pixel that the model is shown, and a patch of which becomes a pixel;
                None is the image's own.
            chip: side of a chip, pixels; None is that of the training crops.
            overlap: pixels that chips share; None is 64, or half a chip where that is less.
            batch: chips per forward pass; None fits the device.
            precision: what matrices are multiplied in: ``float32``, ``bfloat16``, or ``auto``: bfloat16
                on CUDA.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

        Returns:
            ``embedding (band, y, x)``, float32, one pixel per patch, NaN where a patch has no
            valid pixel, with the image's CRS.

        Raises:
            geodino.errors.GeodinoError: a mistake the caller can mend; ContractError where the
                image is not what the model was trained on.
        """
        how = Meeting.asked(
            bands=bands,
            scale=scale,
            accept=accept,
            gsd_m=gsd_m,
            chip=chip,
            batch=batch,
            precision=precision,
        )
        source = {f.name: getattr(self.source, f.name) for f in fields(self.source)}
        described = EmbeddingModel(**source)
        return embed_image(described, image, how, overlap=overlap, device=device)

    def predict(
        self,
        image: "str | PathLike[str] | xarray.DataArray",
        *,
        bands: Sequence[str | int] | None = None,
        scale: float | None = None,
        accept: Sequence[str] = (),
        gsd_m: float | None = None,
        chip: int | None = None,
        overlap: int | None = None,
        batch: int | None = None,
        precision: str = "auto",
        symmetries: str = "none",
        applicability: bool = False,
        device: str = "auto",
    ) -> "xarray.DataArray":
        """Return the map that the model's head makes of a raster or an array of pixels, in memory.

        Args:
            image: a raster, or a DataArray (band, y, x) of stored values.
            bands: see `embed`.
            scale: see `embed`.
            accept: see `embed`.
            gsd_m: metres per pixel that the model is shown; the map keeps the image's. None is
                what the model was made with.
            chip: side of a chip, pixels; None is what the model was made with.
            overlap: pixels that chips share; None as for ``chip``.
            batch: see `embed`.
            precision: see `embed`.
            symmetries: mean over orientations: ``none``, ``flips`` (4) or ``turns`` (8).
            applicability: add the band ``dissimilarity``: how far the ground is from the training
                ground; above 1 it is unlike nearly all of it.
            device: see `embed`.

        Returns:
            On the image's grid: ``height (band, y, x)``, float32, metres above ground, NaN where the
            image has no valid pixel; bands ``lower`` and ``upper`` follow where the model is
            calibrated. Or ``classes (band, y, x)``, uint8, 255 where it has none; the attributes
            ``flag_values`` and ``flag_meanings`` name them.

        Raises:
            geodino.errors.GeodinoError: a mistake the caller can mend; CheckpointError where the
                model has no head, or one that finds objects.
        """
        if self.task is None:
            raise CheckpointError(
                f"{self.source.name} is a backbone and has no head: it has features, not heights, "
                "classes or objects. Train a head with `geodino finetune`, or use embed(...)."
            )
        if not isinstance(self.task, MapTask):
            raise CheckpointError(
                f"{self.source.name} finds objects, which are rows of a table and no pixels: write it "
                "with geodino.predict(image, model, 'objects.parquet')."
            )
        how = Meeting.asked(
            bands=bands,
            scale=scale,
            accept=accept,
            gsd_m=gsd_m,
            chip=chip,
            batch=batch,
            precision=precision,
        )
        return predict_image(
            self.task,
            image,
            how,
            overlap=overlap,
            symmetries=symmetries,
            applicability=applicability,
            device=device,
        )


def open_any(model: str) -> Model:
    """Open whatever MODEL names."""
    task = task_within(model)
    opened = open_model(model) if task is None else task.described(model)
    values = {field.name: getattr(opened.loaded, field.name) for field in fields(opened.loaded)}
    return Model(**values, source=opened, task=task)
