"""From the parts of a map to its file: compressed tiles are copied, none is encoded twice."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from geodino.io.cog.layout import Layer, Layout
from geodino.io.cog_rows import Point
from geodino.metrics.moments import Moments


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembled:
    """What came out."""

    moments: Moments
    """Of the valid pixels of each band; empty where the layer takes none."""

    bytes: int
    """Size of the file."""


def assemble(
    folder: Path,
    path: Path,
    layer: Layer,
    *,
    layout: Layout,
    tags: Mapping[str, str] | None = None,
    area_or_point: Point = "Area",
    allow: Collection[int] = (),
    threads: int = 2,
    big: bool | None = None,
) -> Assembled:
    """Write one layer as a cloud-optimised GeoTIFF; the folder is left as it is.

    Args:
        folder: the parts, of any number of shards.
        path: the file; written beside it and renamed.
        layer: one of those the parts were written with; descriptions, units, scales, offsets and
            colours may differ from then, what is stored may not.
        layout: as the parts were written with.
        tags: of the file.
        area_or_point: what a pixel stands for, as in the source.
        allow: supertiles that may be missing: outside the area of interest; they are nodata.
        threads: that compress overviews.
        big: BigTIFF or not; None decides by size.

    Raises:
        RunError: a supertile is missing, the parts are of another job or damaged, or the file
            cannot be written.
    """
    raise NotImplementedError
