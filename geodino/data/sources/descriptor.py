"""Descriptors: what the files of a known format hold, written down once in ``dataset.yaml``.

A descriptor turns file names into scenes and bands, and declares what no pixel can tell: units,
scale and offset, wavelengths, the quality layer and its classes. Adding a data set of a known
format is one folder with one YAML file.
"""

import re
from collections import Counter
from functools import cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from geodino.config import Config
from geodino.errors import RecipeError, SourceError, suggest
from geodino.geo.bands import CommonName, Unit
from geodino.geo.quality import QUALITY, QualityClasses
from geodino.geo.regrid import Resampling

FILE = "dataset.yaml"


class DescribedBand(Config):
    """One band of the format."""

    name: str
    """What the band is called, e.g. ``B04``."""

    file: str | None = None
    """What the pattern's group ``band`` finds in the name of the band's file, or the key of its
    STAC asset. Left out: the band's name."""

    number: int | None = Field(default=None, ge=1)
    """Number of the band in its file, the first is 1. Left out: the band's place among those of
    its file in this list, hence 1 where each band has a file of its own."""

    common_name: CommonName | None = None
    """Name shared by sensors, as in STAC."""

    wavelength_nm: float | None = Field(default=None, gt=0)
    """Centre wavelength, nanometres."""

    unit: Unit = "unknown"
    """Unit of ``stored * scale + offset``."""

    scale: float | None = None
    """``value = stored * scale + offset``. Left out: what the file says."""

    offset: float | None = None
    """See ``scale``."""


class QualityLayer(Config):
    """The provider's own layer of clouds, shadows and defects."""

    file: str | None = None
    """What the group ``band`` finds in the name of the layer's file, or the key of its STAC asset.
    Left out: the layer is a band of the image file."""

    number: int = Field(default=1, ge=1)
    """Number of the band in its file, the first is 1; for ``bands`` layers classes say it."""

    classes: str | QualityClasses
    """Name of known classes, or classes spelled out."""

    mask: tuple[str, ...] = ()
    """Classes that make a pixel invalid, unless ``data.mask`` says otherwise."""

    @property
    def known(self) -> QualityClasses:
        """The classes, whether named or spelled out."""
        return self.classes if isinstance(self.classes, QualityClasses) else QUALITY[self.classes]

    @model_validator(mode="after")
    def _classes_exist(self) -> "QualityLayer":
        if isinstance(self.classes, str) and self.classes not in QUALITY:
            raise ValueError(
                f"classes: there is no quality layer {self.classes!r}."
                f"{suggest(self.classes, QUALITY)} Known: {', '.join(QUALITY)}"
            )
        unknown = [name for name in self.mask if name not in self.known.classes]
        if unknown:
            raise ValueError(
                f"mask: the layer has no class {unknown[0]!r}."
                f"{suggest(unknown[0], self.known.classes)} It has: {', '.join(self.known.classes)}"
            )
        return self


class Descriptor(Config):
    """What the files of one format hold."""

    description: str
    """What it is, in one sentence."""

    licence: str | None = None
    """Licence of the data."""

    source: str | None = None
    """Where the format is documented."""

    root: str | None = None
    """Where the files are: a folder or pattern, relative to the descriptor. Left out: the folder
    of the descriptor, or what ``--tiles`` names."""

    files: str
    """Regular expression, searched in the path of a file below the root (``/`` between folders).
    Groups: ``band`` where each band has a file of its own, ``date``, ``resolution`` (of several
    files of one band the smallest is taken), ``folder`` (a part that differs among the files of a
    scene). Files that agree in all but ``band``, ``resolution`` and ``folder`` are one scene."""

    example: str
    """A path that ``files`` finds; checked when the descriptor is read."""

    date_format: str | None = None
    """How the group ``date`` is written, for ``strptime``: ``%Y%m%d``."""

    bands: tuple[DescribedBand, ...]
    """The bands, in the order models read them."""

    quality: QualityLayer | None = None
    """The quality layer, if there is one."""

    grid: str | None = None
    """Band whose grid a scene takes where its bands have several. Left out: they must agree."""

    resampling: Resampling | None = None
    """How bands of other grids come to ``grid``. Left out: they must agree."""

    radiometry: Literal["declared", "sentinel-2"] = "declared"
    """``sentinel-2``: the offset of each scene follows from its processing baseline."""

    alpha: Literal["auto", "mask", "band"] = "auto"
    """See ``data.alpha``, which overrules it."""

    nodata: Literal["auto", "tag", "ignore"] | float = "auto"
    """See ``data.nodata``, which overrules it."""

    @model_validator(mode="after")
    def _consistent(self) -> "Descriptor":
        try:
            pattern = re.compile(self.files)
        except re.error as error:
            raise ValueError(f"files: not a regular expression ({error})") from None
        if not pattern.search(self.example):
            raise ValueError("example: the pattern of files does not find it")
        if "date" in pattern.groupindex and self.date_format is None:
            raise ValueError("date_format: needed for the group date")
        names = [band.name for band in self.bands]
        if not names:
            raise ValueError("bands: there are none")
        if len(set(names)) < len(names):
            raise ValueError("bands: two have the same name")
        if len(set(self.places.values())) < len(names):
            raise ValueError("bands: two are the same band of the same file; give them a number")
        if self.grid is not None and self.grid not in names:
            raise ValueError(f"grid: there is no band {self.grid!r}.{suggest(self.grid, names)}")
        if self.grid is not None and self.resampling is None:
            raise ValueError("resampling: needed beside grid (nearest, bilinear or average)")
        return self

    @property
    def pattern(self) -> re.Pattern[str]:
        """``files``, compiled."""
        return re.compile(self.files)

    @property
    def has_file_per_band(self) -> bool:
        """Whether a scene is several files."""
        return "band" in self.pattern.groupindex

    @cached_property
    def places(self) -> dict[str, tuple[str | None, int]]:
        """File key (None: the scene's only file) and number of each band, by its name."""
        found: dict[str, tuple[str | None, int]] = {}
        count: Counter[str | None] = Counter()
        for band in self.bands:
            key = band.file or (band.name if self.has_file_per_band else None)
            count[key] += 1
            found[band.name] = key, band.number or count[key]
        return found


def descriptor_folder() -> Path:
    """Return where the descriptors that travel with the package lie."""
    packaged = Path(str(files("geodino"))) / "_datasets"
    return packaged if packaged.is_dir() else Path(str(files("geodino"))).parent / "datasets"


def descriptor_names() -> list[str]:
    """Return the names of the descriptors that travel with the package."""
    return sorted(path.parent.name for path in descriptor_folder().glob(f"*/{FILE}"))


def descriptor_path(name: str | Path) -> Path:
    """Return the YAML file of a descriptor given by name, folder or file.

    Raises:
        SourceError: there is none.
    """
    path = Path(name).expanduser()
    if path.is_dir() and (path / FILE).is_file():
        return path / FILE
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    if str(name) in descriptor_names():
        return descriptor_folder() / str(name) / FILE
    raise SourceError(
        f"There is no data set descriptor {str(name)!r}.{suggest(str(name), descriptor_names())} "
        f"Known: {', '.join(descriptor_names())}; or give a folder with a {FILE} "
        "(geodino inspect --write-descriptor drafts one)."
    )


def load_descriptor(name: str | Path) -> Descriptor:
    """Read a descriptor by name, folder or file.

    Raises:
        SourceError: it does not exist or is not valid; every mistake is named.
    """
    path = descriptor_path(name)
    try:
        values: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SourceError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SourceError(f"{path} holds no keys; a descriptor is a YAML mapping.")
    try:
        return Descriptor.parse(values, source=str(path))
    except RecipeError as error:
        text = str(error).replace("cannot run", "is not a valid descriptor")
        raise SourceError(text.rsplit("\n", 1)[0]) from None


def root_of(path: Path, descriptor: Descriptor) -> str:
    """Return where the files of a descriptor lie that is a source itself."""
    if descriptor.root and "://" in descriptor.root:
        return descriptor.root
    return str(path.parent / descriptor.root) if descriptor.root else str(path.parent)
