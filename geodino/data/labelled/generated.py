"""The mini suite: four small labelled sets of the generated world, made in memory in seconds.

Test data with exact truth, never a result: it shows that an evaluation works, not how good a model
is. Each region is one scene, cut into chips of 64 pixels; training, validation and test chips lie
in different columns of it with a column left out between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import blake2b
from types import MappingProxyType

import numpy as np
from jaxtyping import Bool, UInt8
from rasterio.transform import array_bounds
from rasterio.warp import transform_bounds

from geodino.data.generated.tiff import HOME, Placement
from geodino.data.generated.worlds import VERSION
from geodino.data.labelled.common import cut, season
from geodino.data.labelled.sets import Image, Kind, Label, PartName, SetFacts
from geodino.errors import SourceError, suggest
from geodino.geo.windows import Window
from geodino.world.scene import CLASSES, Scene, scene
from geodino.world.sensors import SENSORS

CHIP = 64
"""Side of an image, pixels."""

COVER = ("grass", "arable", "trees", "water", "built")
"""Classes of the mini suite: roads, tracks and buildings are one."""

_TO_COVER = np.array([min(number, COVER.index("built")) for number in range(len(CLASSES))], "uint8")

_ROWS = 8
_COLUMNS: Mapping[PartName, tuple[int, ...]] = MappingProxyType(
    {"train": (0, 1, 2, 3, 4), "val": (6,), "test": (8, 9)}
)
"""Columns 5 and 7 lie between the parts and belong to none."""

_WIDTH = 10 * CHIP
_APART_M = 40_000.0
_PRESENT = 0.05


@dataclass(frozen=True, kw_only=True, slots=True)
class _Region:
    name: str
    seed: int
    date: str
    top: int = 0
    left: int = 0


_REGIONS = (
    _Region(name="north", seed=11, date="2023-04-18", top=-300, left=-700),
    _Region(name="east", seed=12, date="2023-07-01", top=-300, left=-700),
    _Region(name="south", seed=13, date="2023-09-08"),
    _Region(name="west", seed=14, date="2024-06-20", top=-300, left=-700),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Mini:
    kind: Kind
    sensor: str
    metric: str
    classes: tuple[str, ...] = COVER
    unit: str = ""


_MINI: Mapping[str, _Mini] = MappingProxyType(
    {
        "mini-cover": _Mini(kind="classification", sensor="s2", metric="accuracy"),
        "mini-covers": _Mini(kind="multilabel", sensor="s2", metric="micro_f1"),
        "mini-segments": _Mini(kind="segmentation", sensor="rgb", metric="miou"),
        "mini-heights": _Mini(kind="regression", sensor="rgb", metric="rmse", classes=(), unit="m"),
    }
)


def mini_names() -> tuple[str, ...]:
    """Return the names of the sets of the mini suite."""
    return tuple(_MINI)


def open_mini(name: str) -> "GeneratedSet":
    """Open a set of the mini suite; its scenes are made when they are first read.

    Raises:
        SourceError: there is none of that name.
    """
    if name not in _MINI:
        raise SourceError(
            f"The mini suite has no set {name!r}.{suggest(name, _MINI)} It has: {', '.join(_MINI)}."
        )
    return GeneratedSet(name)


class GeneratedSet:
    """A set of the mini suite (see :class:`geodino.data.labelled.sets.LabelledSet`)."""

    def __init__(self, name: str) -> None:
        about = _MINI[name]
        sensor = SENSORS[about.sensor]
        self._sensor = about.sensor
        self.parts: Mapping[PartName, tuple[str, ...]] = {
            part: tuple(
                f"{region.name}/{row}/{column}"
                for region in _REGIONS
                for row in range(_ROWS)
                for column in columns
            )
            for part, columns in _COLUMNS.items()
        }
        self.facts = SetFacts(
            name=name,
            kind=about.kind,
            classes=about.classes,
            bands=tuple(sensor.bands),
            dtype=str(np.dtype(sensor.dtype)),
            metric=about.metric,
            gsd_m=sensor.gsd_m,
            unit=about.unit,
            notes=(
                "Generated pixels: they show that an evaluation works, never how good a model is.",
                "Parts lie in different columns of each region, one column apart.",
            ),
            source="the generated world of geodino, Apache-2.0",
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of what the scenes are made from, and of which key is in which part."""
        text = repr(
            (VERSION, self.facts.name, self._sensor, CHIP, _REGIONS, sorted(self.parts.items()))
        )
        return blake2b(text.encode(), digest_size=16).hexdigest()

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of an image, the same for all."""
        _place(key)
        return CHIP, CHIP

    def image(self, key: str, window: Window | None = None) -> Image:
        """Cut an image, or a window of it, out of its scene."""
        made, (rows, columns) = self._scene(key)
        pixels = cut(made.pixels[:, rows, columns], window)
        valid = cut(made.valid[rows, columns], window)
        return pixels.copy(), np.broadcast_to(valid, pixels.shape)

    def label(self, key: str, window: Window | None = None) -> Label:
        """Return the truth: the commonest cover, the covers of 5 % and more, a map, or heights."""
        made, (rows, columns) = self._scene(key)
        if self.facts.kind == "regression":
            return cut(made.height_m[rows, columns], window).copy()
        cover: UInt8[np.ndarray, "h w"] = _TO_COVER[made.classes[rows, columns]]
        if self.facts.kind == "segmentation":
            return cut(cover, window).copy()
        share = np.bincount(cover.ravel(), minlength=len(COVER)) / cover.size
        if self.facts.kind == "classification":
            return int(share.argmax())
        present: Bool[np.ndarray, " k"] = share >= _PRESENT
        return present

    def traits(self, key: str) -> Mapping[str, str]:
        """Return region, season, date and sensor."""
        region, _, _ = _place(key)
        month = int(region.date[5:7])
        return {
            "region": region.name, "season": season(month), "date": region.date,
            "sensor": self._sensor,
        }  # fmt: skip

    def outline(self, key: str) -> tuple[float, float, float, float]:
        """Return west, south, east, north in degrees, where the world was put on the Earth."""
        region, row, column = _place(key)
        made, _ = self._scene(key)
        east = HOME.east_m + _APART_M * (_REGIONS.index(region) - 1)
        frame = made.frame.cut(row * CHIP, column * CHIP, CHIP, CHIP)
        bounds = array_bounds(CHIP, CHIP, Placement(east_m=east).transform(frame))
        west, south, east, north = transform_bounds(HOME.crs, "EPSG:4326", *bounds)
        return west, south, east, north

    def _scene(self, key: str) -> tuple[Scene, tuple[slice, slice]]:
        region, row, column = _place(key)
        return _made(region, self._sensor), (
            slice(row * CHIP, (row + 1) * CHIP),
            slice(column * CHIP, (column + 1) * CHIP),
        )


@lru_cache(maxsize=2 * len(_REGIONS))
def _made(region: _Region, sensor: str) -> Scene:
    """Make a region's scene once; the sets of one sensor share it."""
    return scene(
        region.seed, height=_ROWS * CHIP, width=_WIDTH, sensor=sensor, date=region.date,
        top=region.top, left=region.left,
    )  # fmt: skip


def _place(key: str) -> tuple[_Region, int, int]:
    name, row, column = key.split("/")
    return next(region for region in _REGIONS if region.name == name), int(row), int(column)
