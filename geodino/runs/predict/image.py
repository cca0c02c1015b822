"""A map in memory: a raster or an xarray array in, a DataArray out."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING

from geodino import __version__
from geodino.data.loader import default_threads
from geodino.infer.cover import Cover, chip_group
from geodino.infer.heights import DISSIMILAR, DISSIMILARITY
from geodino.infer.whole import predict_window
from geodino.io.data_array import map_array
from geodino.runs.device import choose_device
from geodino.runs.mapping.inputs import one_raster
from geodino.runs.predict.base import MapTask
from geodino.runs.predict.job import Storage, check_symmetries
from geodino.runs.sources import Meeting

if TYPE_CHECKING:
    import xarray


def predict_image(
    task: MapTask,
    image: "str | PathLike[str] | xarray.DataArray",
    how: Meeting,
    *,
    overlap: int | None = None,
    symmetries: str = "none",
    applicability: bool = False,
    device: str = "auto",
) -> "xarray.DataArray":
    """Return the map of one raster, or of an array of pixels (band, y, x), on its own grid.

    Raises:
        SourceError: it cannot be read, the path names several, or the array is no image.
        BandError: a band that was asked for is not there.
        ContractError: it is not what the model was trained on.
        RecipeError: chips that do not fit the model, or unknown symmetries.
        CheckpointError: the model does not know how far ground is from its training ground.
    """
    check_symmetries(symmetries)
    how = replace(how, gsd_m=task.gsd(how.gsd_m))
    chip = task.chip(how.chip)
    shared = task.overlap(overlap, chip=chip)
    predictor = task.predictor(
        choose_device(device),
        how,
        symmetries=symmetries,
        applicability=applicability,
    )
    with (
        one_raster(image, task.contract, how) as (raster, regrid),
        ThreadPoolExecutor(default_threads(), "geodino-read") as threads,
    ):
        seen = raster.grid if regrid is None else regrid.model
        cover = Cover.of(
            seen.height,
            seen.width,
            chip=chip,
            overlap=shared,
            align=predictor.align,
            group=chip_group(how.batch, chip=chip, device=predictor.device),
        )
        values, valid = predict_window(raster, predictor, cover, threads=threads, regrid=regrid)
    product = task.product(Storage(applicability=applicability))
    layer = product.layers[0]
    return map_array(
        product.stored(values, valid)[layer.name],
        raster.grid,
        name=layer.name,
        bands=list(layer.descriptions),
        nodata=float("nan") if layer.nodata is None else layer.nodata,
        attributes={
            "long_name": task.title.lower(),
            **({"units": task.units} if task.units else {}),
            **task.attributes,
            "geodino_version": __version__,
            "model": task.name,
            "model_sha256": task.sha256,
            "license": task.license,
            "chip_size": chip,
            "overlap": shared,
            **({DISSIMILARITY: DISSIMILAR} if applicability else {}),
        },
    )
