"""What the STAC items of all our products share: place, time, links."""

import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import shapely
from pyproj import CRS

from geodino.geo.grid import Grid

PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
PROCESSING = "https://stac-extensions.github.io/processing/v1.2.0/schema.json"
RASTER = "https://stac-extensions.github.io/raster/v1.1.0/schema.json"
TABLE = "https://stac-extensions.github.io/table/v1.2.0/schema.json"

MEDIA_TYPES = {
    ".tif": "image/tiff; application=geotiff; profile=cloud-optimized",
    ".zarr": "application/vnd+zarr",
    ".parquet": "application/vnd.apache.parquet",
    ".geojson": "application/geo+json",
    ".png": "image/png",
    ".qml": "application/xml",
}

_EARLIEST = "1900-01-01T00:00:00Z"
"""Start of the interval where no acquisition time is known: before it there were no such images."""


def item_path(product: Path) -> Path:
    """Return where the item of a product lies: beside it, with the ending ``.json``."""
    return product.with_suffix(".json")


def written_at(now: datetime | None) -> str:
    """Return a time, or the present one, as RFC 3339 in UTC."""
    return (now or datetime.now(UTC)).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def feature(name: str, grids: Sequence[Grid], extensions: Sequence[str]) -> dict[str, Any]:
    """Return the beginning of an item: what it is, and where; no place is a null geometry."""
    outline = _outline(grids)
    item: dict[str, Any] = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": list(extensions),
        "id": name,
        "geometry": None if outline is None else shapely.geometry.mapping(outline),
    }
    if outline is not None:
        item["bbox"] = [float(v) for v in outline.bounds]
    return item


def time_fields(times: Sequence[str | None], made: str) -> dict[str, str | None]:
    """Return the time fields of a product of images.

    Without any acquisition time ``datetime`` is null, and the interval that STAC then demands
    reaches from 1900 to now; ``geodino:datetime_note`` says that it is no statement about the scene.

    Args:
        times: acquisition of each source, RFC 3339; None where unknown.
        made: when the product was made.
    """
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


def place_fields(grids: Sequence[Grid]) -> dict[str, Any]:
    """Return ``gsd`` and what the projection extension asks for, as far as all grids share it."""
    found: dict[str, Any] = {}
    sizes = [gsd for grid in grids if grid.gsd_m is not None for gsd in grid.gsd_m]
    if sizes:
        found["gsd"] = round(max(sizes), 4)
    crs = {grid.crs for grid in grids}
    if len(crs) != 1 or None in crs:
        return found
    name = str(crs.pop())
    if ":" in name and len(name) < 32:  # an authority code; WKT is longer
        found["proj:code"] = name
    else:
        found |= {"proj:code": None, "proj:projjson": CRS.from_user_input(name).to_json_dict()}
    if len(grids) == 1:
        grid = grids[0]
        found["proj:shape"] = [grid.height, grid.width]
        found["proj:transform"] = [float(v) for v in grid.transform[:6]]
    return found


def link(rel: str, target: str | Path, item: Path, media_type: str | None = None) -> dict[str, str]:
    """Return a link from an item to something else, relative where both are local."""
    found = {"rel": rel, "href": relative_href(target, item)}
    return found if media_type is None else {**found, "type": media_type}


def asset(path: Path, item: Path, *, title: str, roles: Sequence[str]) -> dict[str, Any]:
    """Return a file of the product; its ending says what it is."""
    return {
        "href": relative_href(path, item),
        "type": MEDIA_TYPES[path.suffix],
        "title": title,
        "roles": list(roles),
    }


def relative_href(target: str | Path, file: Path) -> str:
    """Return a path relative to the folder of ``file``; what is no local path stays as it is."""
    text = str(target)
    if "://" in text or text.startswith("/vsi"):
        return text
    relative = Path(os.path.relpath(text, file.parent)).as_posix()
    return relative if relative.startswith("../") else f"./{relative}"


def _outline(grids: Sequence[Grid]) -> shapely.Geometry | None:
    outlines = [outline for grid in grids if (outline := grid.footprint_wgs84()) is not None]
    return shapely.unary_union(outlines) if outlines else None
