"""``geodino embed``: the features of rasters as COG, zarr, GeoParquet or DataArray."""

from geodino.runs.embed.job import EmbedJob
from geodino.runs.embed.memory import embed_image
from geodino.runs.embed.model import open_model
from geodino.runs.embed.run import embed
from geodino.runs.sources import Meeting, parse_accept, parse_bands

__all__ = [
    "EmbedJob",
    "Meeting",
    "embed",
    "embed_image",
    "open_model",
    "parse_accept",
    "parse_bands",
]
