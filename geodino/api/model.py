"""What ``geodino.load`` returns: a model that embeds paths and arrays."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from os import PathLike, fspath
from typing import TYPE_CHECKING

from geodino.models.folder import LoadedModel
from geodino.runs.embed import Meeting, embed_array, embed_file, parse_accept
from geodino.runs.embed.model import EmbeddingModel
from geodino.runs.models import OpenedModel, open_model

if TYPE_CHECKING:
    import xarray


@dataclass(frozen=True, kw_only=True, slots=True)
class Model(LoadedModel):
    """A model in memory, and where it came from."""

    source: OpenedModel
    """Its name, the hash of its weights, and where it came from."""

    def embed(
        self,
        image: "str | PathLike[str] | xarray.DataArray",
        *,
        bands: Sequence[str | int] | None = None,
        scale: float | None = None,
        accept: Sequence[str] = (),
        chip: int | None = None,
        batch: int | None = None,
        device: str = "auto",
    ) -> "xarray.DataArray":
        """Return dense features of a raster or an array of pixels, in memory.

        Args:
            image: a raster, or a DataArray (band, y, x) of stored values.
            bands: what to read in the model's order: names, or numbers (the first is 1).
            scale: what stored values are multiplied by before the model.
            accept: differences from the training data to take as they are: ``gsd``, ``units``,
                ``values``.
            chip: side of a chip, pixels; None is that of the training crops.
            batch: chips per forward pass; None fits the device.
            device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

        Returns:
            ``embedding (band, y, x)``, float32, one pixel per patch, NaN where a patch has no
            valid pixel, with the image's CRS.

        Raises:
            geodino.errors.GeodinoError: a mistake the caller can mend; ContractError where the
                image is not what the model was trained on.
        """
        how = Meeting(
            bands=None if bands is None else tuple(bands),
            scale=scale,
            accept=parse_accept(accept),
            chip=chip,
            batch=batch,
        )
        source = {f.name: getattr(self.source, f.name) for f in fields(self.source)}
        described = EmbeddingModel(**source)
        if isinstance(image, str | PathLike):
            return embed_file(described, fspath(image), how, device=device)
        return embed_array(described, image, how, device=device)


def open_any(model: str) -> Model:
    """Open whatever MODEL names."""
    opened = open_model(model)
    values = {field.name: getattr(opened.loaded, field.name) for field in fields(opened.loaded)}
    return Model(**values, source=opened)
