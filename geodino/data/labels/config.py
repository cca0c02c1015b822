"""What a user may say about canopy-height labels: files, units, range, and how they are compared."""

from typing import Literal

from pydantic import Field

from geodino.config import Config
from geodino.data.config import DataConfig
from geodino.geo.align import Statistic

HeightUnit = Literal["m", "dm", "cm", "ft"]
"""Unit of a height after scale and offset; ``ft`` is the international foot, 0.3048 m."""

Order = Literal["closest", "newest", "finest", "path"]
"""Which label comes first where several cover a pixel of an image."""


class FootprintsConfig(Config):
    """Labels that are single footprints, such as those of GEDI, rather than rasters."""

    height: str | None = None
    """Column of the heights. ``null``: the one of ``rh98``, ``rh_98``, ``height`` that there is."""

    date: str | None = None
    """Column of the acquisition time. ``null``: the one of ``datetime``, ``date``,
    ``acquired`` that there is, if any."""

    footprint_m: float = Field(default=25.0, gt=0)
    """Diameter on the ground that a point stands for, metres; 25 is GEDI's. Polygons are taken as
    they are."""

    percentile: float = Field(default=98.0, gt=0, le=100)
    """Percentile of the heights in a footprint that its label is: 98 for RH98. A prediction is
    compared as the same percentile of its pixels in the footprint."""


class LabelsConfig(Config):
    """How canopy-height labels are read and brought to the images."""

    kind: Literal["auto", "rasters", "footprints"] = "auto"
    """Whether labels are ``rasters`` or ``footprints`` (points or polygons in a vector file).
    ``auto``: vector files by their ending (``.geojson`` is one), everything else as rasters."""

    unit: HeightUnit | None = None
    """Unit of the heights. ``null``: what the files declare; refused where they do not. Open-Canopy
    stores decimetres."""

    band: str | int | None = None
    """Band of the heights where files have several: its name or number, the first is 1."""

    dataset: str | None = None
    """Descriptor of the files, as ``data.dataset``."""

    scale: float | None = None
    """Declares ``value = stored * scale + offset``, over what the files say; the unit comes after."""

    offset: float | None = None
    """See ``scale``."""

    nodata: Literal["auto", "tag", "ignore"] | float = "auto"
    """Stored value that marks missing labels, as ``data.nodata``. 0 m is a height."""

    mask: tuple[str, ...] | None = None
    """Classes of a quality layer that make a label invalid, as ``data.mask``."""

    aoi: str | None = None
    """Vector file; label rasters whose footprint it does not touch are left out."""

    datetime: str | None = None
    """``START/END``; labels of other or unknown times are left out."""

    where: str | None = None
    """Condition on the columns of the index of label rasters, or of the table of footprints:
    ``quality_flag == 1 and sensitivity > 0.95``."""

    statistic: Statistic = "max"
    """How finer label pixels become one coarser pixel: ``max``, as a canopy-height model itself is
    made of the returns in a cell; ``mean``; or ``p95``."""

    order: Order = "closest"
    """Which label comes first where several cover a pixel: the ``closest`` to the image in time,
    the ``newest``, the ``finest``, or by ``path``. Unknown times come last, ties go by path."""

    ceiling_m: float = Field(default=120.0, gt=0)
    """Heights above this are invalid; no tree is taller than 116 m."""

    accept: tuple[Literal["range"], ...] = ()
    """Doubts that are settled: ``range`` takes labels whose heights look wrong (a 99th percentile
    above ``ceiling_m``, all below 1 m, or some below -5 m) as they are declared."""

    strict: bool = False
    """Whether an unreadable file ends the run."""

    footprints: FootprintsConfig = Field(default_factory=FootprintsConfig)
    """Labels that are footprints."""

    def data_config(self) -> DataConfig:
        """Return how the label rasters are read, as the source of images would be."""
        return DataConfig(
            bands=None if self.band is None else (self.band,),
            dataset=self.dataset,
            scale=self.scale,
            offset=self.offset,
            nodata=self.nodata,
            mask=self.mask,
            aoi=self.aoi,
            datetime=self.datetime,
            where=self.where,
            strict=self.strict,
            overlap="all",
        )
