"""Features in memory: a raster or an xarray array in, a DataArray out."""

from concurrent.futures import ThreadPoolExecutor
from os import PathLike
from typing import TYPE_CHECKING

from geodino import __version__
from geodino.data.loader import default_threads
from geodino.infer.chips import patch_grid
from geodino.infer.cover import Cover, chip_group
from geodino.infer.whole import predict_window
from geodino.io.data_array import feature_array
from geodino.runs.device import choose_device
from geodino.runs.embed.model import EmbeddingModel
from geodino.runs.mapping.inputs import one_raster
from geodino.runs.sources import Meeting

if TYPE_CHECKING:
    import xarray


def embed_image(
    model: EmbeddingModel,
    image: "str | PathLike[str] | xarray.DataArray",
    how: Meeting,
    *,
    overlap: int | None = None,
    device: str = "auto",
) -> "xarray.DataArray":
    """Return the features of one raster, or of an array of pixels (band, y, x).

    Raises:
        SourceError: it cannot be read, the path names several, or the array is no image.
        BandError: a band that was asked for is not there.
        ContractError: it is not what the model was trained on.
        RecipeError: chips that do not fit the model.
    """
    chip = model.chip_side(how.chip)
    shared = model.overlap(overlap, chip=chip)
    predictor = model.predictor(choose_device(device), how)
    with (
        one_raster(image, model.contract, how) as (raster, regrid),
        ThreadPoolExecutor(default_threads(), "geodino-read") as threads,
    ):
        seen = raster if regrid is None else regrid.seen(raster)
        cover = Cover.of(
            seen.grid.height,
            seen.grid.width,
            chip=chip,
            overlap=shared,
            align=predictor.align,
            stride=predictor.stride,
            group=chip_group(how.batch, chip=chip, device=predictor.device),
        )
        features, _ = predict_window(seen, predictor, cover, threads=threads)
    return feature_array(
        features,
        patch_grid(seen.grid, predictor.stride),
        attributes={
            "long_name": "features",
            "geodino_version": __version__,
            "model": model.name,
            "model_sha256": model.sha256,
            "chip_size": chip,
            "overlap": shared,
            "patch_size": predictor.stride,
        },
    )
