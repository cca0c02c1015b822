"""The STAC item of an embedding product: where it came from, by which model, in what form.

Fields ``emb:*`` follow the STAC embedding extension (proposal 0.0.1), which describes one
execution of a model that an item with the MLM extension describes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from geodino.files import write_json
from geodino.geo.grid import Grid
from geodino.io.item import (
    PROCESSING,
    PROJECTION,
    asset,
    feature,
    item_path,
    link,
    place_fields,
    time_fields,
    written_at,
)

EXTENSIONS = (
    "https://stac-extensions.github.io/embeddings/v0.0.1/schema.json",
    PROJECTION,
    PROCESSING,
)


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


def write_item(product: Product, *, now: datetime | None = None) -> Path:
    """Write the item of a product; return where."""
    path = item_path(product.path)
    made = written_at(now)
    item = feature(product.path.stem, product.grids, EXTENSIONS)
    item["properties"] = {
        **time_fields(product.times, made),
        "created": made,
        **place_fields(product.grids),
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
        link("emb:model", product.model_item, path, "application/geo+json"),
        *(link("emb:source-data", source, path) for source in product.sources),
    ]
    item["assets"] = {
        "embeddings": asset(product.path, path, title="Features", roles=["data", "embedding"])
    }
    if product.preview is not None:
        item["assets"]["preview"] = asset(
            product.preview,
            path,
            title="First three principal components as red, green, blue",
            roles=["overview"],
        )
    write_json(path, item)
    return path
