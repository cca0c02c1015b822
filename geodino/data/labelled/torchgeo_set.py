"""Data sets of torchgeo, where their files lie on disk: nothing is downloaded or unpacked here.

torchgeo hands out float32 tensors; they are taken as stored values. It is imported only when a set
is opened.
"""

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from geodino.data.labelled.common import band, class_map, cut, digest, sentinel_2, usable
from geodino.data.labelled.sets import Image, Kind, Label, Missing, PartName, SetFacts
from geodino.errors import SourceError, suggest
from geodino.geo.bands import Band
from geodino.geo.windows import Window


@dataclass(frozen=True, kw_only=True, slots=True)
class TorchgeoAbout:
    """What torchgeo does not say of one of its data sets."""

    kind: Kind
    metric: str
    bands: tuple[Band, ...]
    gsd_m: float | None
    needs: tuple[str, ...]
    """Files and folders below the root without which torchgeo would unpack or download."""

    splits: Mapping[PartName, str] = field(
        default_factory=lambda: MappingProxyType({"train": "train", "val": "val", "test": "test"})
    )
    """Its own names of the parts."""

    options: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    """What its class is called with beside root and split."""

    source: str = ""
    notes: tuple[str, ...] = ()


_RGB = (band("red", "red"), band("green", "green"), band("blue", "blue"))
_EUROSAT_BANDS = tuple(
    sentinel_2(code)
    for code in (
        "B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B09", "B10", "B11", "B12", "B8A",
    )
)  # fmt: skip
_S2 = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
_BEN = ("B01", *_S2[:8], "B09", "B11", "B12")
_WITH_VALIDATION: Mapping[PartName, str] = MappingProxyType(
    {"train": "train", "val": "validation", "test": "test"}
)
_TIF = "ds/images/remote_sensing/otherDatasets/sentinel_2/tif"


def _eurosat(lists: str, *notes: str) -> TorchgeoAbout:
    return TorchgeoAbout(
        kind="classification",
        metric="accuracy",
        bands=_EUROSAT_BANDS,
        gsd_m=10.0,
        needs=(_TIF, *(f"{lists}-{part}.txt" for part in ("train", "val", "test"))),
        options={"bands": tuple(b.name for b in _EUROSAT_BANDS)},
        source="EuroSAT (Helber et al. 2019), MIT",
        notes=notes,
    )


TORCHGEO: Mapping[str, TorchgeoAbout] = MappingProxyType(
    {
        "EuroSAT": _eurosat(
            "eurosat",
            "Parts were drawn at random: neighbouring tiles lie in both, so scores are too high "
            "(EuroSATSpatial splits by longitude).",
        ),
        "EuroSATSpatial": _eurosat("eurosat-spatial", "Parts are split by longitude."),
        "RESISC45": TorchgeoAbout(
            kind="classification", metric="accuracy", bands=_RGB, gsd_m=None,
            needs=("NWPU-RESISC45", *(f"resisc45-{part}.txt" for part in ("train", "val", "test"))),
            source="NWPU-RESISC45 (Cheng et al. 2017), for research",
            notes=("Ground sampling distance differs from image to image, 0.2 to 30 m.",),
        ),
        "UCMerced": TorchgeoAbout(
            kind="classification", metric="accuracy", bands=_RGB, gsd_m=0.3,
            needs=(
                "UCMerced_LandUse/Images",
                *(f"uc_merced-{part}.txt" for part in ("train", "val", "test")),
            ),
            source="UC Merced Land Use (Yang and Newsam 2010), public domain imagery",
            notes=("torchgeo resizes every image to 256 x 256 pixels.",),
        ),
        "So2Sat": TorchgeoAbout(
            kind="classification", metric="accuracy", gsd_m=10.0, splits=_WITH_VALIDATION,
            bands=tuple(sentinel_2(code, name=f"S2_{code}", scale=1.0) for code in _S2),
            needs=("training.h5", "validation.h5", "testing.h5"),
            options={"version": "2", "bands": tuple(f"S2_{code}" for code in _S2)},
            source="So2Sat LCZ42 version 2 (Zhu et al. 2020), CC-BY-4.0",
            notes=(
                "Stored values are reflectance already.",
                "The bands of Sentinel-2 are read, not those of Sentinel-1.",
            ),
        ),
        "BigEarthNetV2": TorchgeoAbout(
            kind="multilabel", metric="micro_map", gsd_m=10.0, splits=_WITH_VALIDATION,
            bands=tuple(sentinel_2(code) for code in _BEN),
            needs=("BigEarthNet-S2", "BigEarthNet-S1", "Reference_Maps", "metadata.parquet"),
            options={"bands": "s2"},
            source="BigEarthNet v2.0 (Clasen et al. 2024), CDLA-Permissive-1.0",
            notes=("Bands of 20 and 60 m come resized to 120 x 120 pixels.",),
        ),
    }
)  # fmt: skip
"""The data sets that can be opened, by torchgeo's names."""


def find_torchgeo(name: str, root: Path | None) -> Missing | None:
    """Return what a data set lacks on disk; None where it can be opened.

    Raises:
        SourceError: a name that is not among those above.
    """
    about = _about(name)
    if root is None:
        return Missing(
            name=name,
            reason="no folder was named",
            cure=f"Name the folder of torchgeo's {name} with --data.",
        )
    lacking = [need for need in about.needs if not (root / need).exists()]
    if lacking:
        return Missing(
            name=name,
            reason=f"{root} lacks {lacking[0]}",
            cure=f'Download and unpack it there: python -c "from torchgeo.datasets import {name}; '
            f"{name}('{root}', download=True)\" where torchgeo can, else from its publisher.",
            looked_at=tuple(str(root / need) for need in about.needs),
        )
    return None


def open_torchgeo(name: str, root: Path | str) -> "TorchgeoSet":
    """Open a data set of torchgeo from its folder.

    Raises:
        SourceError: an unknown name, files are missing, or torchgeo is not installed or refuses.
    """
    missing = find_torchgeo(name, Path(root))
    if missing is not None:
        raise SourceError(f"{name} is not there: {missing.reason}. {missing.cure}")
    return TorchgeoSet(name, Path(root))


class TorchgeoSet:
    """A data set of torchgeo (see :class:`geodino.data.labelled.sets.LabelledSet`)."""

    def __init__(self, name: str, root: Path) -> None:
        about = _about(name)
        self._root = root
        library = _library()
        made = getattr(library.datasets, name, None)
        if made is None:
            raise SourceError(
                f"torchgeo {library.__version__} has no data set {name}. Install another version."
            )
        self._data: dict[PartName, Any] = {}
        for part, split in about.splits.items():
            try:
                self._data[part] = made(root=str(root), split=split, **about.options)
            except (TypeError, ValueError, AssertionError, OSError) as error:
                raise SourceError(
                    f"torchgeo {library.__version__} cannot open {name} in {root} ({error}). "
                    "Unpack the data set again; versions 0.8.1 and later are known to work."
                ) from error
        self.parts: Mapping[PartName, tuple[str, ...]] = {
            part: tuple(f"{part}/{i:06d}" for i in range(len(data)))
            for part, data in self._data.items()
        }
        first = self._data["train"]
        names = getattr(first, "classes" if hasattr(first, "classes") else "class_set", ())
        self.facts = SetFacts(
            name=name,
            kind=about.kind,
            classes=tuple(str(text) for text in names),
            bands=about.bands,
            dtype="float32",
            metric=about.metric,
            gsd_m=about.gsd_m,
            notes=(*about.notes, f"Read through torchgeo {library.__version__}, as float32."),
            source=about.source,
        )

    @cached_property
    def fingerprint(self) -> str:
        """A hash of the files torchgeo reads (see ``common.digest``), and of the parts."""
        listed = [Path(row[0]) for d in self._data.values() for row in getattr(d, "imgs", ())]
        files = listed or [path for path in self._root.rglob("*") if path.is_file()]
        return digest(files, self.parts, root=self._root)

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of an image; torchgeo has to read it for that."""
        height, width = self._pixels(key).shape[-2:]
        return int(height), int(width)

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read an image, or a window of it."""
        return usable(cut(self._pixels(key), window))

    def label(self, key: str, window: Window | None = None) -> Label:
        """Read a label."""
        sample, count = self._sample(key), len(self.facts.classes)
        if self.facts.kind == "segmentation":
            values = np.squeeze(np.asarray(sample["mask"]))
            return class_map(cut(values, window), classes=count, source=key)
        found = np.asarray(sample["label"])
        if self.facts.kind == "multilabel":
            if found.shape != (count,):
                raise SourceError(
                    f"{self.facts.name} ({key}) has a label of {found.size} numbers for {count} "
                    "classes. Its torchgeo is of another version than this adapter knows."
                )
            return found.astype(bool)
        number = int(found)
        if not 0 <= number < count:
            raise SourceError(
                f"{self.facts.name} ({key}) has the label {number} of {count} classes. Unpack it again."
            )
        return number

    def traits(self, key: str) -> Mapping[str, str]:
        """Return nothing: torchgeo tells nothing else of an image."""
        return {}

    def outline(self, key: str) -> tuple[float, float, float, float] | None:
        """Return None: torchgeo does not tell where an image lies."""
        return None

    def _sample(self, key: str) -> Mapping[str, Any]:
        part, _, number = key.partition("/")
        data: Any = next(d for name, d in self._data.items() if name == part)
        try:
            sample: Mapping[str, Any] = data[int(number)]
        except (OSError, RuntimeError) as error:
            raise SourceError(
                f"{self.facts.name} ({key}) cannot be read ({error}). Unpack it again."
            ) from error
        return sample

    def _pixels(self, key: str) -> Any:
        values = np.asarray(self._sample(key)["image"], dtype=np.float32)
        # From 0.9 on some data sets have an axis of time before the bands.
        if values.ndim == 4 and values.shape[0] == 1:
            values = values[0]
        if values.ndim != 3 or len(values) != len(self.facts.bands):
            raise SourceError(
                f"{self.facts.name} ({key}) has an image of shape {values.shape}, not of "
                f"{len(self.facts.bands)} bands. Its torchgeo is of another version than this "
                "adapter knows."
            )
        return values


def _about(name: str) -> TorchgeoAbout:
    if name not in TORCHGEO:
        raise SourceError(
            f"There is no adapter for torchgeo's {name!r}.{suggest(name, TORCHGEO)} There are: "
            f"{', '.join(TORCHGEO)}; others can be described as docs/own-benchmark.md shows."
        )
    return TORCHGEO[name]


def _library() -> Any:
    try:
        importlib.import_module("torchgeo.datasets")
        return importlib.import_module("torchgeo")
    except ImportError as error:
        raise SourceError(
            f"torchgeo cannot be imported ({error}). Install it: pip install torchgeo requests."
        ) from error
