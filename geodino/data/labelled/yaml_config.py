"""What a ``dataset.yaml`` says of one's own labelled images."""

import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import yaml
from pydantic import Field, model_validator

from geodino.config import Config
from geodino.errors import RecipeError, SourceError
from geodino.geo.bands import Band

FILE = "dataset.yaml"

METRICS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "classification": ("accuracy", "balanced_accuracy"),
        "multilabel": ("micro_f1", "macro_f1", "micro_map", "macro_map"),
        "segmentation": ("miou", "pixel_accuracy", "fw_iou"),
        "regression": ("rmse", "mae", "r2"),
    }
)
"""What may be reported of each kind of label, the first by default."""


class StatisticsConfig(Config):
    """Statistics of stored values, one number a band."""

    low: tuple[float, ...]
    """Minimum of each band."""

    high: tuple[float, ...]
    """Maximum of each band."""

    mean: tuple[float, ...]
    """Mean of each band."""

    std: tuple[float, ...]
    """Standard deviation of each band."""

    @property
    def rows(self) -> tuple[tuple[float, ...], ...]:
        """All four."""
        return self.low, self.high, self.mean, self.std


class LabelledConfig(Config):
    """What the images and labels of a folder are."""

    kind: Literal["classification", "multilabel", "segmentation", "regression"]
    """What a label is."""

    name: str | None = None
    """Name in results. Left out: the folder's."""

    source: str = ""
    """Where the data comes from and its licence, in a line."""

    classes: tuple[str, ...] = ()
    """Names of the classes by number; none for regression."""

    table: str | None = None
    """CSV or Parquet file relative to this one, with a row for each image: ``path``, ``label`` (a
    class, several with ``;`` between, a number, or the path of a map), ``split``, and any columns
    to group scores by. Left out: ``images`` says where they are."""

    images: str | None = None
    """Regular expression of image files, relative to this one. Groups: ``key`` (needed), ``split``,
    ``label`` for classes by name, and any others to group scores by."""

    labels: str | None = None
    """File of an image's map of classes or numbers, in which ``{key}`` and other groups of
    ``images`` are replaced: ``masks/{key}.tif``."""

    bands: tuple[Band, ...] = ()
    """The bands, in the order of the files. Left out: as the first file describes them."""

    statistics: StatisticsConfig | None = None
    """Published statistics of the stored values."""

    ignore: tuple[int, ...] = ()
    """Values of a map of classes that do not count; 255 never does."""

    label_nodata: float | None = None
    """Value of a map of numbers where they are unknown, beside NaN and its own tag."""

    nodata: float | None = None
    """Stored value of missing pixels of the images. Left out: the files' own tags."""

    background: int | None = Field(default=None, ge=0)
    """Class that the metric leaves out of its mean."""

    metric: str | None = None
    """The number to report. Left out: accuracy, micro_f1, miou or rmse by the kind."""

    gsd_m: float | None = Field(default=None, gt=0)
    """Ground sampling distance, metres."""

    unit: str = ""
    """Unit of the numbers of a regression."""

    @model_validator(mode="after")
    def _consistent(self) -> "LabelledConfig":
        if (self.table is None) == (self.images is None):
            raise ValueError("table: name either a table or a pattern of images, and not both")
        if self.images is not None:
            try:
                groups = re.compile(self.images).groupindex
            except re.error as error:
                raise ValueError(f"images: not a regular expression ({error})") from None
            if "key" not in groups:
                raise ValueError("images: the pattern needs a group (?P<key>...)")
            if self.labels is None and "label" not in groups:
                raise ValueError("labels: needed beside images, or a group label in the pattern")
        if (self.kind == "regression") == bool(self.classes):
            raise ValueError("classes: name at least two, and none for regression")
        if len(self.classes) == 1 or len(set(self.classes)) < len(self.classes):
            raise ValueError("classes: name at least two, each once")
        if self.background is not None and self.background >= len(self.classes):
            raise ValueError("background: is the number of a class, the first is 0")
        if self.metric is not None and self.metric not in METRICS[self.kind]:
            raise ValueError(f"metric: of {self.kind} there are {', '.join(METRICS[self.kind])}")
        return self


def is_labelled(folder: Path) -> bool:
    """Whether a folder's ``dataset.yaml`` describes labelled images (it has the key ``kind``)."""
    path = folder / FILE if folder.is_dir() else folder
    return path.is_file() and path.suffix in (".yaml", ".yml") and "kind" in _values(path)


def read_config(path: Path) -> LabelledConfig:
    """Read what a ``dataset.yaml`` says.

    Raises:
        SourceError: it is missing or not valid; every mistake is named.
    """
    if not path.is_file():
        raise SourceError(f"{path} does not exist. Write one as docs/own-benchmark.md shows.")
    try:
        return LabelledConfig.parse(_values(path), source=str(path))
    except RecipeError as error:
        text = str(error).replace("cannot run", "describes no labelled set")
        raise SourceError(text.rsplit("\n", 1)[0]) from None


def _values(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise SourceError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise SourceError(f"{path} holds no keys; it is a YAML mapping.")
    return values
