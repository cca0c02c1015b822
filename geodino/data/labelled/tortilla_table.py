"""The nineteen data sets of GEO-Bench-2: what their files do not say themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from geodino.data.labelled.common import band, sentinel_2
from geodino.data.labelled.sets import Kind
from geodino.geo.bands import Band

SPLIT = "tortilla:data_split"
"""Column with the part of a sample: ``train``, ``validation``, ``test``."""

EXTRA = "add_test_split"
"""Column that marks rows set aside for a further test."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Modality:
    """One kind of image of a data set."""

    bands: tuple[Band, ...]
    nodata: float | None = None
    """Stored value of missing pixels that no tag declares."""


@dataclass(frozen=True, kw_only=True, slots=True)
class V2Set:
    """One data set of the benchmark."""

    kind: Kind
    metric: str

    classes: tuple[str, ...] = ()
    groups: tuple[str, ...] = ("core",)
    """Groups of the benchmark that it counts in."""

    image: tuple[str, ...] = ()
    """Names of its kinds of images, the one that is read by default first; empty: any."""

    gsd_m: float | None = None
    unit: str = ""
    modalities: Mapping[str, Modality] = field(default_factory=lambda: MappingProxyType({}))
    """Those whose bands no file names, by name."""

    verified: bool = False
    """Whether names of bands and labels were compared with published files."""

    split: str = SPLIT
    """Column that names the part of a sample."""


def _numbered(count: int) -> tuple[str, ...]:
    return tuple(f"class {i}" for i in range(count))


_BEN = (
    "Urban fabric", "Industrial or commercial units", "Arable land", "Permanent crops", "Pastures",
    "Complex cultivation patterns",
    "Land principally occupied by agriculture, with significant areas of natural vegetation",
    "Agro-forestry areas", "Broad-leaved forest", "Coniferous forest", "Mixed forest",
    "Natural grassland and sparsely vegetated areas",
    "Moors, heathland and sclerophyllous vegetation", "Transitional woodland, shrub",
    "Beaches, dunes, sands", "Inland wetlands", "Coastal wetlands", "Inland waters",
    "Marine waters",
)  # fmt: skip
"""The 19 classes of BigEarthNet."""

_LAND = ("B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B11", "B12")
_TWELVE = ("B01", *_LAND[:8], "B09", "B11", "B12")

_BEN_IMAGES = MappingProxyType(
    {
        "s2": Modality(bands=tuple(sentinel_2(code) for code in _TWELVE)),
        "s1": Modality(bands=(band("VH", "vh", unit="dB"), band("VV", "vv", unit="dB"))),
    }
)

_BIOMASS_IMAGES = MappingProxyType(
    {
        "s2": Modality(bands=(*(sentinel_2(code) for code in _LAND), band("CLP"))),
        "s1": Modality(
            bands=tuple(
                band(name, name[:2].lower(), unit="dB")  # type: ignore[arg-type]
                for name in ("VV ascending", "VH ascending", "VV descending", "VH descending")
            ),
            nodata=-9999.0,
        ),
    }
)

_CLOUDS = ("clear", "thick cloud", "thin cloud", "cloud shadow")
_FLAIR = (
    "building", "pervious surface", "impervious surface", "bare soil", "water", "coniferous",
    "deciduous", "brushwood", "vineyard", "herbaceous vegetation", "agricultural land",
    "plowed land", "other",
)  # fmt: skip
_GLACIERS = ("no information", "rock outcrop", "glacier", "ocean and ice melange")
_COVER = ("impervious", "agriculture", "forest", "wetland", "soil", "water", "snow and ice")

V2: Mapping[str, V2Set] = MappingProxyType(
    {
        "benv2": V2Set(
            kind="multilabel", metric="micro_f1", classes=_BEN, image=("s2", "s1"), gsd_m=10.0,
            groups=("core", "classification", "multi-spectral", "10 m and coarser"),
            modalities=_BEN_IMAGES, verified=True,
        ),
        "biomassters": V2Set(
            kind="regression", metric="rmse", unit="t/ha", image=("s2", "s1"), gsd_m=10.0,
            groups=("regression", "multi-temporal", "multi-spectral", "10 m and coarser"),
            modalities=_BIOMASS_IMAGES, verified=True,
        ),
        "burn_scars": V2Set(
            kind="segmentation", metric="miou", classes=("unburnt", "burn scar"), gsd_m=30.0,
            groups=("core", "pixel", "multi-spectral", "10 m and coarser"),
        ),
        "caffe": V2Set(
            kind="segmentation", metric="miou", classes=_GLACIERS, groups=("core", "pixel", "radar")
        ),
        "cloudsen12": V2Set(
            kind="segmentation", metric="miou", classes=_CLOUDS, image=("s2", "s2l1c", "s2l2a"),
            gsd_m=10.0, groups=("core", "pixel", "multi-spectral", "10 m and coarser"),
        ),
        "dynamic_earthnet": V2Set(
            kind="segmentation", metric="miou", classes=_COVER, image=("planet", "s2", "s1"),
            gsd_m=3.0, groups=("pixel", "multi-temporal", "finer than 10 m"),
        ),
        "everwatch": V2Set(
            kind="detection", metric="map50", groups=("core", "detection", "finer than 10 m")
        ),
        "flair2": V2Set(
            kind="segmentation", metric="miou", classes=_FLAIR, image=("aerial", "s2"), gsd_m=0.2,
            groups=("core", "pixel", "finer than 10 m"),
        ),
        "forestnet": V2Set(
            kind="classification", metric="accuracy", classes=_numbered(12), gsd_m=15.0,
            groups=("core", "classification", "multi-spectral", "10 m and coarser"),
        ),
        "fotw": V2Set(
            kind="segmentation", metric="miou", classes=("background", "field", "boundary"),
            gsd_m=10.0, groups=("core", "pixel", "10 m and coarser"),
        ),
        "kuro_siwo": V2Set(
            kind="segmentation", metric="miou", gsd_m=10.0, groups=("core", "pixel", "radar"),
            classes=("no water", "permanent water", "flood", "no data"),
        ),
        "nzcattle": V2Set(
            kind="detection", metric="map50", gsd_m=0.1,
            groups=("core", "detection", "finer than 10 m"),
        ),
        "pastis": V2Set(
            kind="segmentation", metric="miou", classes=_numbered(20), image=("s2", "s1a", "s1d"),
            gsd_m=10.0, groups=("core", "pixel", "multi-temporal", "10 m and coarser"),
        ),
        "so2sat": V2Set(
            kind="classification", metric="accuracy", classes=_numbered(17), image=("s2", "s1"),
            gsd_m=10.0, groups=("core", "classification", "multi-spectral", "10 m and coarser"),
        ),
        "spacenet2": V2Set(
            kind="segmentation", metric="miou", classes=("background", "building"), gsd_m=0.3,
            image=("worldview", "rgb", "pan"), groups=("core", "pixel", "finer than 10 m"),
        ),
        "spacenet7": V2Set(
            kind="segmentation", metric="miou", classes=("background", "building"), gsd_m=4.0,
            groups=("core", "pixel", "finer than 10 m"),
        ),
        "substation": V2Set(
            kind="detection", metric="map50", gsd_m=10.0,
            groups=("detection", "multi-spectral", "10 m and coarser"),
        ),
        "treesatai": V2Set(
            kind="multilabel", metric="micro_f1", classes=_numbered(15), gsd_m=0.2,
            image=("aerial", "s2", "s1"), groups=("core", "classification", "finer than 10 m"),
        ),
        "wind_turbine": V2Set(kind="detection", metric="map50", groups=("detection",)),
    }
)  # fmt: skip
"""By the names of their files; classes and groups as the benchmark's paper and the sources' papers
give them."""
