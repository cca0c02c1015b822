"""The nineteen data sets of GEO-Bench-2: what their files do not say themselves."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from geodino.data.labelled.common import band, sentinel_2
from geodino.data.labelled.sets import Kind
from geodino.geo.bands import Band, CommonName

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

    labels: tuple[str, ...] = ()
    """Names of the map of labels, where its name does not say so or several maps lie there; the
    first is read."""

    column: str = "labels"
    """Column with the classes of a whole image."""

    first: int = 0
    """Stored value of the first class of a map."""

    rest: bool = False
    """Whether all values above the last class mean the last class."""

    ignored: tuple[int, ...] = ()
    """Values of a map that do not count, beside 255."""


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

_HLS = ("B02", "B03", "B04", "B8A", "B11", "B12")
_RADAR = (band("VV", "vv", unit="dB"), band("VH", "vh", unit="dB"), band("VV/VH"))
_RGBN = tuple(
    band(name, name, unit="reflectance", scale=1e-4) for name in ("red", "green", "blue", "nir")
)
_BY_SIZE = (
    "B02", "B03", "B04", "B08", "B05", "B06", "B07", "B8A", "B11", "B12", "B01", "B09",
)  # fmt: skip
"""Sentinel-2 bands of 10 m, 20 m and 60 m, one after the other."""

_FLOOD = Modality(bands=(band("VV", "vv", unit="power"), band("VH", "vh", unit="power")))


def _colours(*names: CommonName) -> tuple[Band, ...]:
    return tuple(band(name, name) for name in names)


def _only(name: str, *bands: Band) -> Mapping[str, Modality]:
    return MappingProxyType({name: Modality(bands=bands)})


_PLANET = Modality(bands=(*_colours("red", "green", "blue"), band("alpha")))

_CLOUDS = ("clear", "thick cloud", "thin cloud", "cloud shadow")
_FLAIR = (
    "building", "pervious surface", "impervious surface", "bare soil", "water", "coniferous",
    "deciduous", "brushwood", "vineyard", "herbaceous vegetation", "agricultural land",
    "plowed land", "other",
)  # fmt: skip
_GLACIERS = ("no information", "rock outcrop", "glacier", "ocean and ice melange")
_FORESTNET = (
    "Oil palm plantation", "Timber plantation", "Other large-scale plantations",
    "Grassland/shrubland", "Small-scale agriculture", "Small-scale mixed plantation",
    "Small-scale oil palm plantation", "Mining", "Fish pond", "Logging road", "Secondary forest",
    "Other",
)  # fmt: skip
_SO2SAT = (
    "Compact high-rise", "Compact middle-rise", "Compact low-rise", "Open high-rise",
    "Open middle-rise", "Open low-rise", "Lightweight low-rise", "Large low-rise", "Sparsely built",
    "Heavy industry", "Dense Trees", "Scattered trees", "Bush, scrub", "Low plants",
    "Bare rock or paved", "Bare soil or sand", "Water",
)  # fmt: skip
_PASTIS = (
    "background", "meadow", "soft winter wheat", "corn", "winter barley", "winter rapeseed",
    "spring barley", "sunflower", "grapevine", "beet", "winter triticale", "winter durum wheat",
    "fruits, vegetables, flowers", "potatoes", "leguminous fodder", "soybeans", "orchard",
    "mixed cereal", "sorghum", "void label",
)  # fmt: skip
_TREES = (
    "Abies", "Acer", "Alnus", "Betula", "Cleared", "Fagus", "Fraxinus", "Larix", "Picea", "Pinus",
    "Populus", "Prunus", "Pseudotsuga", "Quercus", "Tilia",
)  # fmt: skip
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
            groups=("core", "pixel", "multi-spectral", "10 m and coarser"), ignored=(-1,),
            modalities=_only("image", *(sentinel_2(code, scale=1.0) for code in _HLS)),
        ),
        "caffe": V2Set(
            kind="segmentation", metric="miou", classes=_GLACIERS,
            groups=("core", "pixel", "radar"), modalities=_only("image", band("gray")),
        ),
        "cloudsen12": V2Set(
            kind="segmentation", metric="miou", classes=_CLOUDS, image=("s2", "s2l1c", "s2l2a"),
            gsd_m=10.0, groups=("core", "pixel", "multi-spectral", "10 m and coarser"),
            modalities=_only("s2l2a", *(sentinel_2(code) for code in _TWELVE)),
        ),
        "dynamic_earthnet": V2Set(
            kind="segmentation", metric="miou", classes=_COVER, image=("planet", "s2", "s1"),
            gsd_m=3.0, groups=("pixel", "multi-temporal", "finer than 10 m"),
            modalities=_only("planet", *_colours("blue", "green", "red", "nir")),
        ),
        "everwatch": V2Set(
            kind="detection", metric="map50", groups=("core", "detection", "finer than 10 m")
        ),
        "flair2": V2Set(
            kind="segmentation", metric="miou", classes=_FLAIR, image=("aerial", "s2"), gsd_m=0.2,
            groups=("core", "pixel", "finer than 10 m"), first=1, rest=True,
            modalities=_only(
                "aerial", *_colours("red", "green", "blue", "nir"), band("elevation")
            ),
        ),
        "forestnet": V2Set(
            kind="classification", metric="accuracy", classes=_FORESTNET, gsd_m=15.0,
            groups=("core", "classification", "multi-spectral", "10 m and coarser"),
            modalities=_only(
                "image", *_colours("blue", "green", "red", "nir08", "swir16", "swir22")
            ),
        ),
        "fotw": V2Set(
            kind="segmentation", metric="miou", classes=("background", "field", "boundary"),
            gsd_m=10.0, groups=("core", "pixel", "10 m and coarser"), image=("win_a", "win_b"),
            labels=("semantic_3class_mask", "instance_mask"),
            modalities=MappingProxyType(
                {"win_a": Modality(bands=_RGBN), "win_b": Modality(bands=_RGBN)}
            ),
        ),
        "kuro_siwo": V2Set(
            kind="segmentation", metric="miou", gsd_m=10.0, groups=("core", "pixel", "radar"),
            classes=("no water", "permanent water", "flood", "no data"), image=("post_event",),
            labels=("mask", "invalid_data"),
            modalities=MappingProxyType({"post_event": _FLOOD, "pre_event": _FLOOD}),
        ),
        "nzcattle": V2Set(
            kind="detection", metric="map50", gsd_m=0.1,
            groups=("core", "detection", "finer than 10 m"),
        ),
        "pastis": V2Set(
            kind="segmentation", metric="miou", classes=_PASTIS, image=("s2", "s1a", "s1d"),
            gsd_m=10.0, groups=("core", "pixel", "multi-temporal", "10 m and coarser"),
            labels=("semantic", "instance"),
            modalities=MappingProxyType(
                {
                    "s2": Modality(bands=tuple(sentinel_2(code) for code in _LAND)),
                    "s1a": Modality(bands=_RADAR), "s1d": Modality(bands=_RADAR),
                }
            ),
        ),
        "so2sat": V2Set(
            kind="classification", metric="accuracy", classes=_SO2SAT, image=("s2", "s1"),
            gsd_m=10.0, groups=("core", "classification", "multi-spectral", "10 m and coarser"),
            modalities=MappingProxyType(
                {
                    "s2": Modality(bands=tuple(sentinel_2(code, scale=1.0) for code in _LAND)),
                    "s1": Modality(bands=(band("VV", "vv"), band("VH", "vh"))),
                }
            ),
        ),
        "spacenet2": V2Set(
            kind="segmentation", metric="miou", classes=("background", "building"), gsd_m=0.3,
            image=("ps-ms", "worldview", "rgb", "pan"),
            groups=("core", "pixel", "finer than 10 m"),
            labels=("semantic_mask", "instance_mask"),
            modalities=MappingProxyType(
                {
                    "ps-ms": Modality(
                        bands=_colours(
                            "coastal", "blue", "green", "yellow", "red", "rededge", "nir", "nir09"
                        )
                    ),
                    "pan": Modality(bands=_colours("pan")),
                }
            ),
        ),
        "spacenet7": V2Set(
            kind="segmentation", metric="miou", classes=("background", "building"), gsd_m=4.0,
            groups=("core", "pixel", "finer than 10 m"),
            modalities=MappingProxyType({"image": _PLANET, "images": _PLANET}),
        ),
        "substation": V2Set(
            kind="detection", metric="map50", gsd_m=10.0,
            groups=("detection", "multi-spectral", "10 m and coarser"),
        ),
        "treesatai": V2Set(
            kind="multilabel", metric="micro_f1", classes=_TREES, gsd_m=0.2,
            image=("aerial", "s2", "s1"), groups=("core", "classification", "finer than 10 m"),
            column="species_labels",
            modalities=MappingProxyType(
                {
                    "aerial": Modality(bands=_colours("nir", "green", "blue", "red")),
                    "s2": Modality(bands=tuple(sentinel_2(code) for code in _BY_SIZE)),
                    "s1": Modality(bands=_RADAR),
                }
            ),
        ),
        "wind_turbine": V2Set(kind="detection", metric="map50", groups=("detection",)),
    }
)  # fmt: skip
"""By the names of their files; classes and groups as the benchmark's paper and the sources' papers
give them, names of rows and order of bands as the benchmark's own reader takes them."""
