"""A map of heights as a zarr store: a variable for each of its bands."""

import shutil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geodino import __version__
from geodino.data.loader import default_threads
from geodino.errors import SourceError
from geodino.infer.heights import DISSIMILAR, DISSIMILARITY
from geodino.io.cog.blocks import stored_rows
from geodino.io.cog.layout import Layer
from geodino.io.map_item import write_map_item
from geodino.io.zarr.write import ZarrMap, ZarrWriter
from geodino.runs.mapping.about import committed_of, seams_of
from geodino.runs.mapping.maps import JOB_TAG, Map
from geodino.runs.predict.about import dissimilar_share, product_of, tags
from geodino.runs.predict.base import MapTask
from geodino.runs.predict.job import PredictJob

_NAMES = {
    "height": "canopy height above the ground",
    "lower": "lower end of the interval of the canopy height",
    "upper": "upper end of the interval of the canopy height",
    DISSIMILARITY: DISSIMILAR,
}


def join_store(one: Map, job: PredictJob, task: MapTask) -> dict[str, Any]:
    """Write the parts of a map to its store, then the STAC item; return what is to be told.

    Raises:
        SourceError: the raster has no valid pixel.
        RunError: supertiles are missing, or the store cannot be written.
    """
    committed = committed_of(one) if one.numbers else {}
    about = tags(one, job, task, committed)
    attributes = {"Conventions": "CF-1.10", **about, JOB_TAG: one.identity}
    (layer,) = one.layers
    with ZarrWriter(one.path, attributes=attributes) as store:
        variables = [_added(store, one, layer, band) for band in range(layer.count)]
        if not (one.numbers and _filled(variables, one, layer)):
            shutil.rmtree(one.parts, ignore_errors=True)
            raise SourceError(
                f"{one.source.path} has no valid pixel{' in the area' if job.aoi else ''}: there "
                "is nothing to map. Check its nodata value (geodino inspect), or --set "
                "data.nodata=ignore."
            )
        store.finish()
    write_map_item(product_of(one, job, task, about), stored=(one.layout.grid, layer))
    shutil.rmtree(one.parts)
    facts: dict[str, Any] = {"maps": 1}
    score, share = seams_of(committed).score, dissimilar_share([committed])
    facts |= {} if score is None else {"seam_score": round(score, 3)}
    return facts | ({} if share is None else {"dissimilar_share": round(share, 4)})


def _added(store: ZarrWriter, one: Map, layer: Layer, band: int) -> ZarrMap:
    """Add the variable of a band."""
    name = layer.descriptions[band]
    attributes: dict[str, Any] = {
        "long_name": _NAMES[name],
        "units": layer.units[band] or "1",
        "AREA_OR_POINT": one.source.area_or_point,
        "geodino_version": __version__,
    }
    if name == "height":
        attributes["standard_name"] = "canopy_height"
    if layer.scales:
        attributes["scale_factor"] = layer.scales[band]
    return store.add_variable(
        name,
        one.layout.grid,
        dtype=layer.dtype,
        nodata=_nodata(layer),
        attributes=attributes,
        across=one.layout.side,
    )


def _filled(variables: list[ZarrMap], one: Map, layer: Layer) -> bool:
    """Write all rows; return whether any pixel is valid."""
    found = False
    rows = stored_rows(
        one.parts,
        layer,
        layout=one.layout,
        key=one.parts_key,
        allow=one.outside,
        threads=default_threads(),
    )
    for window, values in rows:
        found = found or bool(_is_valid(values[0], layer).any())
        for variable, band in zip(variables, values, strict=True):
            variable.write(window.top, window.left, band[None])
    for variable in variables:
        variable.flush()
    return found


def _is_valid(values: NDArray[Any], layer: Layer) -> NDArray[np.bool_]:
    nodata = _nodata(layer)
    valid: NDArray[np.bool_] = ~np.isnan(values) if np.isnan(nodata) else values != nodata
    return valid


def _nodata(layer: Layer) -> float:
    if layer.nodata is None:
        raise ValueError(f"layer {layer.name!r} has no nodata value")
    return layer.nodata
