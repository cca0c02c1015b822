"""What a user may say about the source of tiles: bands, validity, chips, reading."""

from typing import Literal

from pydantic import Field, field_validator

from geodino.config import Config
from geodino.geo.regrid import Resampling


class StatisticsConfig(Config):
    """Mean and standard deviation of the input, and how much of an archive they are computed on."""

    source: Literal["measured", "imagenet"] = "measured"
    """``measured`` on the source, or ``imagenet``: those of ImageNet-1k's photographs, with which
    web images are usually normalised (red, green and blue of 8 bits only); no pixel is read."""

    max_pixels: int = Field(default=2**27, ge=1)
    """Pixels to read at most. A larger archive is represented by a seeded choice of its
    windows, and the result says so. 2**27 = 134 million pixels = 2,048 tiles of 256 x 256."""

    seed: int = 0
    """Which choice of windows is read where the archive is larger than ``max_pixels``. Separate
    from the seed of the run, so that repeats of a run share their input contract."""


class DataConfig(Config):
    """What is read from the tiles, and how."""

    kind: Literal["tiles", "images"] = "tiles"
    """What the files are: ``tiles`` of a map, in any bands, from which chips are cut at their own
    scale; or ``images``, photographs that are seen whole: upright, in 8-bit RGB, resized so that
    the shorter side is the chip. ``images`` also reads WebDataset shards member by member."""

    min_side: int = Field(default=32, ge=1)
    """With ``kind: images``, pictures with a shorter side below this are left out and counted,
    pixels. Those between it and the chip are enlarged, and counted too."""

    dataset: str | None = None
    """Descriptor of the files: the name of one that travels with geodino, or a folder with a
    ``dataset.yaml``. ``null``: one whose pattern tells bands apart by file names is recognised by
    itself, and said; ``none`` takes every file as a tile of its own."""

    bands: tuple[str | int, ...] | None = None
    """Bands to use, in this order: names (also common ones), or numbers in the file (the first is
    1; places in a scene of several files). ``null`` takes all data bands. A selection by name may
    join files that store their bands differently."""

    band_names: tuple[str, ...] | None = None
    """Names of the files' data bands, in file order, where the files do not carry them. STAC
    common names (``red``, ``nir``, ``swir16``) also say what a band is."""

    scale: float | None = None
    """Declares ``value = stored * scale + offset`` for all bands, over what files and descriptors
    say."""

    offset: float | None = None
    """See ``scale``. Sentinel-2 stores -0.1 here from processing baseline 04.00 on."""

    decibel: bool = False
    """Whether radar bands in linear power are read as decibel, ``10 * log10``."""

    grid: str | None = None
    """Band whose grid a scene takes where its bands have several, or ``finest`` or ``coarsest``.
    ``null``: what the descriptor declares; without one they must agree."""

    resampling: Resampling | None = None
    """How bands of other grids come to that grid: ``nearest``, ``bilinear``, ``average``. ``null``:
    what the descriptor declares."""

    mask: tuple[str, ...] | None = None
    """Classes of the quality layer that make a pixel invalid (``[cloud, cloud_shadow]``; ``[]``:
    none). ``null``: those the descriptor names."""

    aoi: str | None = None
    """Vector file; tiles whose footprint it does not touch are left out."""

    datetime: str | None = None
    """``START/END`` in ISO 8601, ``..`` for an open end; tiles of other or unknown times are left
    out."""

    where: str | None = None
    """Condition on the columns of the tile index, as ``pandas.DataFrame.query`` reads it:
    ``gsd_x_m < 1 and width >= 512``."""

    overlap: Literal["once", "all"] = "once"
    """How often ground is sampled that several tiles cover: ``once``, shared among them, or as
    often as tiles cover it."""

    dates: int = Field(default=1, ge=1)
    """Dates of the same place in one sample. 1: every date is a tile of its own. More: the views
    of a sample are drawn from that many dates, which must lie on one grid."""

    alpha: Literal["auto", "mask", "band"] = "auto"
    """What a band tagged alpha is: a ``mask``, a data ``band`` with a wrong tag (NIR in some NAIP
    deliveries), or decided from the pixels: a mask if at least 99 % of its values are 0 or its
    maximum in every inspected file."""

    nodata: Literal["auto", "tag", "ignore"] | float = "auto"
    """Stored value that marks missing pixels: the files' ``tag``, none (``ignore``), a number, or
    decided from the pixels: an integer tag of a file with several bands is believed if at least
    half of the pixels it touches have it in all bands at once. Otherwise it hides true values
    (white roofs under a tag of 255)."""

    valid: Literal["all", "any"] = "all"
    """Whether a pixel may be used where ``all`` of its bands are valid, or ``any``. With ``any``,
    invalid bands of such a pixel are read as the band's mean."""

    min_valid: float = Field(default=0.5, ge=0, le=1)
    """Share of a crop that must be valid; other places are drawn where it is less."""

    chip: Literal["auto"] | int = "auto"
    """Side of the source window that a sample is cut from, pixels. ``auto``: what the views ask
    for, or less where most tiles are smaller."""

    super_window: int = Field(default=1024, ge=1)
    """Side of the part of a tile that is decoded at once, pixels; rounded to whole blocks."""

    chips_per_super_window: int = Field(default=16, ge=1)
    """Chips cut at most from one decoded super-window before it is dropped. More chips cost less
    decoding but put more neighbours of each other into nearby batches."""

    memory_mb: int = Field(default=2048, ge=1)
    """Memory for decoded super-windows that wait to be used, MiB. A source that fits into it is
    decoded once and kept."""

    threads: Literal["auto"] | int = "auto"
    """Threads that read. ``auto``: one per core this process may use, at most 16; always 16 where
    tiles lie behind a network, because those threads wait rather than work."""

    prefetch: int = Field(default=4, ge=1)
    """Batches prepared ahead of the step that uses them."""

    max_open: int = Field(default=64, ge=1)
    """Files that each thread keeps open."""

    strict: bool = False
    """Whether an unreadable file ends the run. Otherwise such files are reported and counted."""

    statistics: StatisticsConfig = Field(default_factory=StatisticsConfig)
    """Mean, standard deviation and percentiles over valid pixels."""

    @field_validator("chip", "threads")
    @classmethod
    def _at_least_one(cls, value: str | int) -> str | int:
        if isinstance(value, int) and value < 1:
            raise ValueError("must be 'auto' or at least 1")
        return value

    @field_validator("scale")
    @classmethod
    def _not_zero(cls, value: float | None) -> float | None:
        if value == 0:
            raise ValueError("must not be 0")
        return value

    @field_validator("bands", "band_names")
    @classmethod
    def _no_band_twice(cls, value: tuple[str | int, ...] | None) -> tuple[str | int, ...] | None:
        if value is not None and (not value or len(set(value)) < len(value)):
            raise ValueError("must name at least one band, and none twice")
        return value
