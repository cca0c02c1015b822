"""Features in memory: a raster or an xarray array in, a DataArray out."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from geodino import __version__
from geodino.errors import SourceError
from geodino.infer.chips import Chipping, Raster, all_chips, patch_grid
from geodino.infer.encode import encoded, stitched
from geodino.io.data_array import feature_array, open_array
from geodino.io.raster import HandlePool
from geodino.runs.device import choose_device
from geodino.runs.embed.model import EmbeddingModel
from geodino.runs.sources import Meeting, offer_of, open_sources

if TYPE_CHECKING:
    import xarray


def embed_file(
    model: EmbeddingModel,
    path: str | Path,
    how: Meeting,
    *,
    overrides: Sequence[str] = (),
    device: str = "auto",
) -> "xarray.DataArray":
    """Return the features of one raster.

    Raises:
        SourceError: it cannot be read, or the path names several.
        ContractError: it is not what the model was trained on.
    """
    with HandlePool() as pool:
        found = open_sources([str(path)], model.contract, how, pool=pool, overrides=overrides)
        if len(found.sources) > 1:
            raise SourceError(
                f"{path} holds {len(found.sources)} rasters; an array holds one. Name one of them, "
                "or write all of them with geodino.embed(...)."
            )
        return _features(model, found.sources[0].raster, how, device)


def embed_array(
    model: EmbeddingModel, array: "xarray.DataArray", how: Meeting, *, device: str = "auto"
) -> "xarray.DataArray":
    """Return the features of an array of pixels (band, y, x).

    Raises:
        SourceError: its dimensions are no image.
        BandError: a band that was asked for is not there.
        ContractError: it is not what the model was trained on.
    """
    contract = model.contract
    opened = open_array(array, valid=contract.valid, fill=contract.mean, choose=how.bands)
    raster = Raster(name=opened.name, grid=opened.grid, read=opened.read)
    contract.check(offer_of(raster, opened.bands, opened.dtype, contract, how), accept=how.accept)
    return _features(model, raster, how, device)


def _features(
    model: EmbeddingModel, raster: Raster, how: Meeting, device: str
) -> "xarray.DataArray":
    chip = model.chip_side(how.chip)
    encoder = model.encoder(choose_device(device), chip=chip, how=how)
    cut = Chipping(raster.grid.height, raster.grid.width, chip, encoder.patch)
    grid = patch_grid(raster.grid, encoder.patch)
    features = np.full((encoder.dim, grid.height, grid.width), np.nan, dtype=np.float32)
    chips = all_chips([raster], chip=chip, patch=encoder.patch)
    for strip in stitched(encoded(chips, encoder), [cut], dim=encoder.dim):
        features[:, strip.top : strip.top + strip.values.shape[1]] = strip.values
    return feature_array(
        features,
        grid,
        attributes={
            "long_name": "features",
            "geodino_version": __version__,
            "model": model.name,
            "model_sha256": model.sha256,
            "chip_size": chip,
            "patch_size": encoder.patch,
        },
    )
