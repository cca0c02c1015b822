"""The STAC item of an embedding product: where it came from, by which model, in what form.

Fields ``emb:*`` follow the STAC embedding extension (proposal 0.0.1), which describes one
execution of a model that an item with the MLM extension describes.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import shapely
from pyproj import CRS

from geodino.files import write_json
from geodino.geo.grid import Grid

EXTENSIONS = (
    "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json",
    "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
    "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
)

MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".zarr": "application/vnd+zarr",
    ".parquet": "application/vnd.apache.parquet",
}

_EARLIEST = "1900-01-01T00:00:00Z"
"""Start of the interval where no acquisition time is known: before it there were no such images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Product:
    """What the item says."""

    path: Path
    """The file or store of features; the item lies beside it."""

    preview: Path | None
    """Its picture."""

    model_item: Path | str
    """The item of the model, or its address where it has none."""

    sources: tuple[str, ...]
    """Files the features were made from."""

    times: tuple[str | None, ...]
    """Their acquisition times, RFC 3339; None where unknown."""

    grids: tuple[Grid, ...]
    """Grids of the output, or of the sources for a table."""

    kind: str
    """``pixel``: one vector per pixel of a map; ``chip``: one per row of a table."""

    dimensions: int
    data_type: str
    chip: int
    """Side of a chip, pixels that the model saw."""

    overlap: int
    """Pixels that neighbouring chips share."""

    quantization: Mapping[str, Any] | None
    software: str
    """Version of the program."""

    parameters: Mapping[str, Any]
    """Settings of this execution."""


def item_path(product: Path) -> Path:
    """Return where the item of a product lies: beside it, with the ending ``.json``."""
    return product.with_suffix(".json")


def write_item(product: Product, *, now: datetime | None = None) -> Path:
    """Write the item of a product; return where.

    Without any acquisition time ``datetime`` is null, and the interval that STAC then demands
    reaches from 1900 to now; ``geodino:datetime_note`` says that it is no statement about the scene.
    """
    path = item_path(product.path)
    made = (now or datetime.now(UTC)).strftime("%Y-%m-%dT%H:%M:%SZ")
    outline = _outline(product.grids)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(EXTENSIONS),
        "id": product.path.stem,
        "geometry": None if outline is None else shapely.geometry.mapping(outline),
    }
    if outline is not None:
        item["bbox"] = [float(v) for v in outline.bounds]
    item["properties"] = {
        **_times(product.times, made),
        "created": made,
        **_place(product),
        "data_type": product.data_type,
        "emb:type": product.kind,
        "emb:dimensions": product.dimensions,
        "emb:chip_layout": {
            "layout_type": "regular_grid",
            "chip_size": [product.chip, product.chip],
            "stride": [product.chip - product.overlap] * 2,
        },
        "emb:runtime_parameters": dict(product.parameters),
        "processing:datetime": made,
        "processing:software": {"geodino": product.software},
    }
    if product.quantization is not None:
        item["properties"]["emb:quantization"] = dict(product.quantization)
    item["links"] = [
        _link("emb:model", product.model_item, path, "application/geo+json"),
        *(_link("emb:source-data", source, path, None) for source in product.sources),
    ]
    item["assets"] = {
        "embeddings": {
            "href": relative_href(product.path, path),
            "type": MEDIA_TYPES[product.path.suffix],
            "title": "Features",
            "roles": ["data", "embedding"],
        }
    }
    if product.preview is not None:
        item["assets"]["preview"] = {
            "href": relative_href(product.preview, path),
            "type": MEDIA_TYPES[".tif"],
            "title": "First three principal components as red, green, blue",
            "roles": ["overview"],
        }
    write_json(path, item)
    return path


def _times(times: Sequence[str | None], made: str) -> dict[str, str | None]:
    known = sorted(time for time in times if time is not None)
    if not known or len(known) < len(times):
        missing = "no" if not known else f"only {len(known)} of {len(times)}"
        return {
            "datetime": None,
            "start_datetime": known[0] if known else _EARLIEST,
            "end_datetime": made,
            "geodino:datetime_note": f"{missing} source names its acquisition time; the interval "
            "only says that the images are older than this file",
        }
    if known[0] == known[-1]:
        return {"datetime": known[0]}
    return {"datetime": None, "start_datetime": known[0], "end_datetime": known[-1]}


def _place(product: Product) -> dict[str, Any]:
    """Return ``gsd`` and what the projection extension asks for, as far as all grids share it."""
    found: dict[str, Any] = {}
    sizes = [gsd for grid in product.grids if grid.gsd_m is not None for gsd in grid.gsd_m]
    if sizes:
        found["gsd"] = round(max(sizes), 4)
    crs = {grid.crs for grid in product.grids}
    if len(crs) != 1 or None in crs:
        return found
    name = str(crs.pop())
    if ":" in name and len(name) < 32:  # an authority code; WKT is longer
        found["proj:code"] = name
    else:
        found |= {"proj:code": None, "proj:projjson": CRS.from_user_input(name).to_json_dict()}
    if len(product.grids) == 1:
        grid = product.grids[0]
        found["proj:shape"] = [grid.height, grid.width]
        found["proj:transform"] = [float(v) for v in grid.transform[:6]]
    return found


def _outline(grids: Sequence[Grid]) -> shapely.Geometry | None:
    outlines = [outline for grid in grids if (outline := grid.footprint_wgs84()) is not None]
    return shapely.unary_union(outlines) if outlines else None


def _link(rel: str, target: str | Path, item: Path, media_type: str | None) -> dict[str, str]:
    link = {"rel": rel, "href": relative_href(target, item)}
    return link if media_type is None else {**link, "type": media_type}


def relative_href(target: str | Path, file: Path) -> str:
    """Return a path relative to the folder of ``file``; what is no local path stays as it is."""
    text = str(target)
    if "://" in text or text.startswith("/vsi"):
        return text
    relative = Path(os.path.relpath(text, file.parent)).as_posix()
    return relative if relative.startswith("../") else f"./{relative}"
