"""STAC items as scenes: bands, scale and offset, dates and quality layers from item metadata."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pystac
from pystac.stac_io import DefaultStacIO

from geodino.data.sources.descriptor import DescribedBand, Descriptor, QualityLayer
from geodino.data.sources.product import SENTINEL_2_OFFSET, offset_of_baseline
from geodino.data.sources.scenes import Scene, Wanted, bands_in_use, lacking
from geodino.errors import SourceError
from geodino.geo.bands import Unit, common_name
from geodino.io.remote import is_far, read_text

_NO_IMAGE = frozenset(
    {"thumbnail", "overview", "visual", "preview", "metadata", "data-mask", "snow-ice"}
)
"""Roles, and keys, of assets that hold no measurements."""

_QUALITY = {
    "scl": "scl",
    "qa_pixel": "landsat-qa-pixel",
    "fmask": "hls-fmask",
    "udm2": "udm2",
}
"""Keys of quality layers that need no descriptor, in small letters."""

_SHARED = (
    "raster:scale", "raster:offset", "unit", "eo:common_name", "eo:center_wavelength",
)  # fmt: skip
"""Fields of a band that STAC 1.1 lets an asset state once for all of its bands."""

_NAMES = frozenset({"name", "eo:common_name", "common_name", "eo:center_wavelength"})
"""Fields of which a band has at least one."""

_NOT_STAC = (
    OSError, ValueError, KeyError, TypeError, AttributeError, pystac.STACError,
    pystac.STACTypeError,
)  # fmt: skip
"""What pystac raises at documents of other kinds."""

_UNITS = {unit.lower(): unit for unit in get_args(Unit)}


@dataclass(frozen=True, slots=True)
class _AssetBand:
    """One band of one asset."""

    path: str
    number: int
    band: DescribedBand
    common: str | None
    """The item's own word, known to us or not."""

    rank: tuple[bool, float]
    """Of two assets with the same band, the one with the lower rank is read."""


def is_stac(path: str | Path) -> bool:
    """Whether a source is a STAC document by its ending."""
    text = str(path)
    bare = text.partition("?")[0] if is_far(text) else text
    return bare.lower().endswith((".json", ".geojson"))


class _Reader(DefaultStacIO):
    """Reads documents from wherever tiles come from, and says in our words what went wrong."""

    def read_text_from_href(self, href: str) -> str:
        return read_text(href) if is_far(href) else super().read_text_from_href(href)


def stac_scenes(
    src: str,
    descriptor: Descriptor | None,
    *,
    chosen: Sequence[str | int] | None = None,
    masked: bool = False,
) -> tuple[list[Scene], list[str]]:
    """Read an item collection, an item or a static catalogue.

    Without a descriptor the bands are those of all assets with ``eo:bands`` (or ``bands``), named
    by the asset's key where it has one band. With one, its bands are looked up by asset key, else
    by common name. Of a band in several assets a GeoTIFF is taken before other formats, and then
    the finest.

    Args:
        src: path or URL of the JSON document.
        descriptor: what is declared about the bands, or None.
        chosen: ``data.bands``; bands of the descriptor that it does not name are not looked for.
        masked: whether a quality layer is wanted where no descriptor names one.

    Returns:
        One scene an item, and notes for the run card.

    Raises:
        SourceError: not a STAC document, or one without items or image assets.
    """
    items = _items(src)
    if not items:
        raise SourceError(f"{src} is a STAC document without items.")
    if descriptor is None:
        found = [_all_bands(item, src) for item in items]
        used, notes = [], []
    else:
        found = [_looked_up(item, descriptor) for item in items]
        have = {name for bands in found for name in bands}
        used = bands_in_use(descriptor, have, chosen)
        absent = [band.name for band in descriptor.bands if band.name not in have]
        if not used:
            raise SourceError(
                f"No item of {src} has a band of the descriptor: the assets of {items[0].id} are "
                f"{', '.join(items[0].assets)}. Name asset keys in `file` of the bands."
            )
        notes = [f"no item has {', '.join(absent)}"] if absent else []
    scenes = []
    for item, bands in zip(items, found, strict=True):
        wanted = [bands[b.name] for b in used if b.name in bands] if used else list(bands.values())
        adjusted, note = _with_offset(item, wanted, descriptor)
        notes += [note] if note else []
        name = f"{src}#{item.id}"
        scenes.append(
            Scene(
                name=name,
                bands=tuple(adjusted),
                quality=_quality(item, descriptor, masked=masked),
                datetime=_when(item),
                datetime_from="stac item" if _when(item) else None,
                lacks=lacking(name, bands, used, item.assets),
            )
        )
    return sorted(scenes, key=lambda s: s.name), list(dict.fromkeys(notes))


def _items(src: str) -> list[pystac.Item]:
    reader = _Reader()
    try:
        document: Any = reader.read_json(src)
        kind = document.get("type")
        if kind == "FeatureCollection":
            found = [pystac.Item.from_dict(feature) for feature in document.get("features", ())]
        elif kind == "Feature":
            found = [pystac.Item.from_dict(document)]
        else:
            opened = pystac.read_file(src, stac_io=reader)
            return (
                list(opened.get_items(recursive=True)) if isinstance(opened, pystac.Catalog) else []
            )
    except _NOT_STAC as error:
        raise SourceError(
            f"{src} cannot be read as a STAC document ({type(error).__name__}: {error}). "
            "Name an ItemCollection, an Item or a Catalog."
        ) from error
    for item in found:
        # Relative hrefs are relative to the document that was read. pystac would keep them
        # pointing to where a `self` link says the item once lay.
        item.set_self_href(None)
        item.set_self_href(src if "://" in src else str(Path(src).absolute()))
    return found


def _all_bands(item: pystac.Item, src: str) -> dict[str, Wanted]:
    """Return the bands of all assets that describe theirs, by name."""
    found: dict[str, Wanted] = {}
    for band in _bands(item):
        found.setdefault(band.band.name, Wanted(band.path, band.number, band.band))
    if not found:
        raise SourceError(
            f"No asset of the item {item.id} in {src} describes its bands (eo:bands). It has "
            f"{', '.join(item.assets) or 'no assets'}. Declare them with a descriptor "
            "(data.dataset), whose bands name asset keys in `file`."
        )
    return found


def _bands(item: pystac.Item) -> Iterable[_AssetBand]:
    """Return every band once."""
    seen: dict[str, _AssetBand] = {}
    for key, asset in item.assets.items():
        described = _band_fields(asset)
        if key.lower() in _QUALITY or _NO_IMAGE & {key.lower(), *(asset.roles or ())}:
            continue
        is_tiff = "tiff" in (asset.media_type or asset.href).lower() or asset.href.endswith(".tif")
        gsd = asset.extra_fields.get("gsd")
        for number, fields in enumerate(described, start=1):
            own = str(fields.get("name") or f"{key}_{number}")
            found = _AssetBand(
                _href(asset),
                number,
                _described(key if len(described) == 1 else own, fields),
                fields.get("eo:common_name") or fields.get("common_name"),
                # A GeoTIFF is read in parts, a JPEG 2000 file often is not.
                (not is_tiff, float(gsd) if gsd else math.inf),
            )
            if own not in seen or found.rank < seen[own].rank:
                seen[own] = found
    return seen.values()


def _band_fields(asset: pystac.Asset) -> list[dict[str, Any]]:
    """Return one mapping a band: STAC 1.1 ``bands``, or eo:bands joined with raster:bands.

    Empty where no band is named: an asset that gives the type of its numbers alone, such as an
    aerosol map, is no image.
    """
    extra = asset.extra_fields
    if "bands" in extra:
        shared = {key: extra[key] for key in _SHARED if key in extra}
        bands = [{**shared, **band} for band in extra["bands"]]
        return bands if all(_NAMES & band.keys() for band in bands) else []
    named: Sequence[Mapping[str, Any]] = extra.get("eo:bands") or ()
    stored: Sequence[Mapping[str, Any]] = extra.get("raster:bands") or [{}] * len(named)
    if len(stored) != len(named):
        stored = [{}] * len(named)
    return [{**raster, **eo} for eo, raster in zip(named, stored, strict=True)]


def _described(name: str, fields: Mapping[str, Any]) -> DescribedBand:
    micrometres = fields.get("eo:center_wavelength") or fields.get("center_wavelength")
    scale = fields.get("raster:scale", fields.get("scale"))
    offset = fields.get("raster:offset", fields.get("offset"))
    return DescribedBand(
        name=name,
        common_name=common_name(
            str(fields.get("eo:common_name") or fields.get("common_name") or "")
        ),
        wavelength_nm=None if micrometres is None else round(1000 * float(micrometres), 1),
        unit=_UNITS.get(str(fields.get("unit", "")).lower(), "unknown"),
        scale=None if scale is None else float(scale),
        offset=None if offset is None else float(offset),
    )


def _looked_up(item: pystac.Item, descriptor: Descriptor) -> dict[str, Wanted]:
    """Return the bands of a descriptor that an item has, by name."""
    bands = list(_bands(item))
    found = {}
    for band in descriptor.bands:
        key, number = descriptor.places[band.name]
        if key is None:
            key, number = band.name, band.number or 1
        asset = item.assets.get(key)
        by_name = [b for b in bands if b.common and b.common == band.common_name]
        if asset is not None:
            found[band.name] = Wanted(_href(asset), number, band)
        elif len(by_name) == 1:
            declared = {k: v for k, v in band.model_dump().items() if v not in (None, "unknown")}
            values = {**by_name[0].band.model_dump(), **declared, "name": band.name}
            joined = DescribedBand.model_validate(values)
            found[band.name] = Wanted(by_name[0].path, by_name[0].number, joined)
    return found


def _with_offset(
    item: pystac.Item, wanted: Sequence[Wanted], descriptor: Descriptor | None
) -> tuple[list[Wanted], str | None]:
    """Settle Sentinel-2's offset, which some catalogues took off the pixels and some did not.

    What a descriptor declares stands above the item.
    """
    properties = item.properties
    applied = properties.get("earthsearch:boa_offset_applied", properties.get("boa_offset_applied"))
    baseline = properties.get("s2:processing_baseline")
    if applied:
        value, why = 0.0, "boa_offset_applied: the catalogue took the offset off the pixels"
    elif baseline is not None:
        value = offset_of_baseline(str(baseline), "the item").value
        why = f"processing baseline {baseline}"
    elif applied is False:
        value, why = SENTINEL_2_OFFSET, "boa_offset_applied is false"
    else:
        return list(wanted), None
    declared = {b.name for b in descriptor.bands if b.offset is not None} if descriptor else ()
    settled = [
        w
        if w.band.name in declared
        else Wanted(
            w.path,
            w.number,
            w.band.model_copy(update={"offset": value, "scale": w.band.scale or 1e-4}),
        )
        for w in wanted
    ]
    return settled, f"Sentinel-2 offset {value:g} ({why})"


def _quality(
    item: pystac.Item, descriptor: Descriptor | None, *, masked: bool
) -> tuple[str, QualityLayer] | None:
    if descriptor is not None and descriptor.quality is not None:
        layer = descriptor.quality
        keys = [k for k in item.assets if layer.file and k.lower() == layer.file.lower()]
        return (_href(item.assets[keys[0]]), layer) if keys else None
    if not masked:
        return None
    for key, asset in item.assets.items():
        if key.lower() in _QUALITY:
            return _href(asset), QualityLayer(file=key, classes=_QUALITY[key.lower()])
    return None


def _href(asset: pystac.Asset) -> str:
    return str(asset.get_absolute_href() or asset.href).removeprefix("file://")


def _when(item: pystac.Item) -> str | None:
    when = item.datetime or item.common_metadata.start_datetime
    return None if when is None else when.isoformat()
