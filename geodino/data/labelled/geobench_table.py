"""The twelve data sets of GEO-Bench v1: what their files do not say themselves."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from geodino.data.labelled.common import band, is_sentinel_2, sentinel_2
from geodino.data.labelled.sets import Kind
from geodino.geo.bands import Band, CommonName


@dataclass(frozen=True, kw_only=True, slots=True)
class V1Set:
    """One data set of the benchmark."""

    kind: Kind
    classes: int

    metric: str
    """As ``SetFacts.metric``."""

    gsd_m: float
    sensor: str
    """``sentinel-2``, ``landsat`` or ``aerial``: what the names of its bands mean."""

    sizes: tuple[int, int, int]
    """Images for training, validation and testing in the default partition; compared with what is
    found, for a note only."""

    background: int | None = None
    """As ``SetFacts.background``."""

    scale: float = 1e-4
    """Of optical satellite bands: to reflectance."""

    notes: tuple[str, ...] = ()


_EIGHT_A = (
    "The publisher's issue tracker reports that the bands from 08A on are stored under wrong names: "
    "the source has 8A last. They are read by the names in the files."
)
_KILN = (
    "The publisher's issue tracker reports that these are not the 13 Sentinel-2 bands their names "
    "say: the source exported ten bands in another order and a true-colour picture. They are read "
    "by the names in the files; 01 to 05 agree."
)

V1: Mapping[str, V1Set] = MappingProxyType(
    {
        "m-bigearthnet": V1Set(
            kind="multilabel", classes=43, metric="micro_f1", gsd_m=10.0, sensor="sentinel-2",
            sizes=(20_000, 1_000, 1_000),
            notes=("GEO-Bench reports micro F1 over 43 classes; other tables report micro mAP, or 19 classes.",),
        ),
        "m-brick-kiln": V1Set(
            kind="classification", classes=2, metric="accuracy", gsd_m=10.0, sensor="sentinel-2",
            sizes=(15_063, 999, 999), notes=(_KILN,),
        ),
        "m-eurosat": V1Set(
            kind="classification", classes=10, metric="accuracy", gsd_m=10.0, sensor="sentinel-2",
            sizes=(2_000, 1_000, 1_000), notes=(_EIGHT_A,),
        ),
        "m-forestnet": V1Set(
            kind="classification", classes=12, metric="accuracy", gsd_m=15.0, sensor="landsat",
            sizes=(6_464, 989, 993),
            notes=("An audit doubts about 30 % of the labels tested on: no score can be near 1.",),
        ),
        "m-pv4ger": V1Set(
            kind="classification", classes=2, metric="accuracy", gsd_m=0.1, sensor="aerial",
            sizes=(11_814, 999, 999),
        ),
        "m-so2sat": V1Set(
            kind="classification", classes=17, metric="accuracy", gsd_m=10.0, sensor="sentinel-2",
            sizes=(19_992, 986, 986), scale=1.0,
            notes=(
                "Stored values are reflectance already; models of stored Sentinel-2 values need them times 10000.",
                "An audit doubts about 15 % of the labels tested on: no score can be near 1.",
            ),
        ),
        "m-NeonTree": V1Set(
            kind="segmentation", classes=2, metric="miou", gsd_m=0.1, sensor="aerial",
            sizes=(270, 94, 93),
        ),
        "m-SA-crop-type": V1Set(
            kind="segmentation", classes=10, metric="miou", gsd_m=10.0, sensor="sentinel-2",
            sizes=(3_000, 1_000, 1_000),
            notes=("Class 0 is no data; the benchmark learns and scores it like any class.",),
        ),
        "m-cashew-plant": V1Set(
            kind="segmentation", classes=7, metric="miou", gsd_m=10.0, sensor="sentinel-2",
            sizes=(1_350, 400, 50), background=0,
            notes=(
                "Class 0 is no data and absent from the test part: the mean is over the other six classes; tables that divide by seven are lower.",
            ),
        ),
        "m-chesapeake": V1Set(
            kind="segmentation", classes=7, metric="miou", gsd_m=1.0, sensor="aerial",
            sizes=(3_000, 1_000, 1_000),
        ),
        "m-nz-cattle": V1Set(
            kind="segmentation", classes=2, metric="miou", gsd_m=0.1, sensor="aerial",
            sizes=(524, 66, 65),
        ),
        "m-pv4ger-seg": V1Set(
            kind="segmentation", classes=2, metric="miou", gsd_m=0.1, sensor="aerial",
            sizes=(3_000, 403, 403),
        ),
    }
)  # fmt: skip
"""By the names of their folders."""

ALIASES: Mapping[str, str] = MappingProxyType({"m-cashew-plantation": "m-cashew-plant"})
"""Other names under which a data set is stored."""

_AERIAL: Mapping[str, tuple[CommonName, float]] = MappingProxyType(
    {
        "red": ("red", 660.0), "green": ("green", 550.0), "blue": ("blue", 470.0),
        "nir": ("nir", 850.0), "nearinfrared": ("nir", 876.0),
    }
)  # fmt: skip
"""m-chesapeake calls its fourth band NearInfrared."""

_LANDSAT: Mapping[str, tuple[CommonName, float]] = MappingProxyType(
    {
        "blue": ("blue", 482.0), "green": ("green", 561.0), "red": ("red", 655.0),
        "nir": ("nir08", 865.0), "swir1": ("swir16", 1609.0), "swir2": ("swir22", 2201.0),
    }
)  # fmt: skip

_CODE = re.compile(r"(\d\d)(A?) - (.+)")
_DATED = re.compile(r"(.+)_(\d{4}-\d\d-\d\d|\d{8}|\d{1,3})")


def split_date(dataset: str) -> tuple[str, str]:
    """Return band and date of an HDF5 dataset's name; the date is empty where there is none."""
    found = _DATED.fullmatch(dataset)
    return (found[1], found[2]) if found else (dataset, "")


def v1_band(name: str, about: V1Set) -> Band | None:
    """Return what a band's name means in a data set; None where it is no image band we know.

    ``04 - Red``, ``08A - Vegetation Red Edge`` (Sentinel-2), ``05 - NIR`` (Landsat), ``Red``
    (aerial), ``05 - VH.LEE Filtered`` (radar).
    """
    found = _CODE.fullmatch(name)
    text = (found[3] if found else name).strip().lower()
    if "cloud" in text:
        return None
    if text.startswith(("vv", "vh")):
        return band(name)
    if about.sensor == "sentinel-2" and found:
        code = "B8A" if found[2] else f"B{found[1]}"
        return sentinel_2(code, name=name, scale=about.scale) if is_sentinel_2(code) else None
    table = _LANDSAT if about.sensor == "landsat" else _AERIAL
    key = text.replace(" ", "")
    return band(name, *table[key]) if key in table else None


def band_order(name: str) -> tuple[int, str, int]:
    """Key that sorts names of bands: optical by number, then radar; red, green, blue, nir."""
    found = _CODE.fullmatch(name)
    text = (found[3] if found else name).lower()
    radar = int(text.startswith(("vv", "vh")))
    if found:
        return radar, f"{found[1]}{found[2]}", 0
    colours = list(_AERIAL)
    return radar, "", colours.index(text) if text in colours else len(colours)
