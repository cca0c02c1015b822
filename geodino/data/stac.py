"""STAC items as scenes: bands, scale and offset, dates and quality layers from item metadata."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pystac
from pystac.stac_io import DefaultStacIO

from geodino.data.descriptor import DescribedBand, Descriptor, QualityLayer
from geodino.data.product import SENTINEL_2_OFFSET, offset_of_baseline
from geodino.data.scenes import Scene, Wanted
from geodino.errors import SourceError
from geodino.geo.bands import Unit, common_name
from geodino.io.remote import is_far, read_text

_NO_IMAGE = frozenset({"thumbnail", "overview", "visual", "metadata", "data-mask", "snow-ice"})
"""Roles of assets that hold no measurements."""

_QUALITY = {
    "scl": "scl",
    "qa_pixel": "landsat-qa-pixel",
    "fmask": "hls-fmask",
    "udm2": "udm2",
}
"""Keys of quality layers that need no descriptor, in small letters."""

_UNITS = {unit.lower(): unit for unit in get_args(Unit)}


@dataclass(frozen=True, slots=True)
class _AssetBand:
    """One band of one asset."""

    key: str
    number: int
    path: str
    band: DescribedBand
    common: str | None
    is_tiff: bool


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
    src: str, descriptor: Descriptor | None, *, masked: bool
) -> tuple[list[Scene], list[str]]:
    """Read an item collection, an item or a static catalogue.

    Without a descriptor the bands are those of all assets with ``eo:bands`` (or ``bands``), named
    by the asset's key where it has one band. With one, its bands are looked up by asset key, else
    by common name.

    Args:
        src: path or URL of the JSON document.
        descriptor: what is declared about the bands, or None.
        masked: whether a quality layer is wanted where no descriptor names one.

    Returns:
        One scene an item, and notes for the run card.

    Raises:
        SourceError: not a STAC document, or one without items or image assets.
    """
    items = _items(src)
    if not items:
        raise SourceError(f"{src} is a STAC document without items.")
    scenes, notes = [], []
    for item in items:
        bands = list(_bands(item))
        if not bands and descriptor is None:
            raise SourceError(
                f"No asset of the item {item.id} in {src} describes its bands (eo:bands). It has "
                f"{', '.join(item.assets) or 'no assets'}. Declare them with a descriptor "
                "(data.dataset), whose bands name asset keys in `file`."
            )
        wanted, lacks = _wanted(item, bands, descriptor, src)
        adjusted, note = _with_offset(item, wanted)
        notes += [note] if note else []
        scenes.append(
            Scene(
                name=f"{src}#{item.id}",
                bands=tuple(adjusted),
                quality=_quality(item, descriptor, masked=masked),
                datetime=_when(item),
                datetime_from="stac item" if _when(item) else None,
                lacks=lacks,
            )
        )
    return sorted(scenes, key=lambda s: s.name), list(dict.fromkeys(notes))


def _items(src: str) -> list[pystac.Item]:
    reader = _Reader()
    try:
        text = reader.read_json(src)
        if text.get("type") == "FeatureCollection":
            found = [pystac.Item.from_dict(feature) for feature in text.get("features", ())]
        elif text.get("type") == "Feature":
            found = [pystac.Item.from_dict(text)]
        else:
            opened = pystac.read_file(src, stac_io=reader)
            return (
                list(opened.get_items(recursive=True)) if isinstance(opened, pystac.Catalog) else []
            )
    except (OSError, ValueError, KeyError, TypeError, pystac.STACError) as error:
        raise SourceError(
            f"{src} cannot be read as a STAC document ({type(error).__name__}: {error}). "
            "Name an ItemCollection, an Item or a Catalog."
        ) from error
    for item in found:
        # Relative hrefs are relative to the document that holds the item.
        item.set_self_href(src if "://" in src else str(Path(src).absolute()))
    return found


def _bands(item: pystac.Item) -> Iterable[_AssetBand]:
    seen: dict[str, _AssetBand] = {}
    for key, asset in item.assets.items():
        described = _band_fields(asset)
        if not described or _NO_IMAGE & set(asset.roles or ()):
            continue
        is_tiff = "tiff" in (asset.media_type or asset.href).lower()
        for number, fields in enumerate(described, start=1):
            own = str(fields.get("name") or f"{key}_{number}")
            found = _AssetBand(
                key,
                number,
                _href(asset),
                _described(key if len(described) == 1 else own, fields),
                fields.get("eo:common_name") or fields.get("common_name"),
                is_tiff,
            )
            other = seen.get(own)
            # The same band as COG and as JPEG 2000: the COG is read in parts.
            if other is None or (is_tiff and not other.is_tiff):
                seen[own] = found
    return seen.values()


def _band_fields(asset: pystac.Asset) -> list[dict[str, Any]]:
    """Return one mapping a band: STAC 1.1 ``bands``, or eo:bands joined with raster:bands."""
    extra = asset.extra_fields
    if "bands" in extra:
        return [dict(band) for band in extra["bands"]]
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


def _wanted(
    item: pystac.Item, bands: Sequence[_AssetBand], descriptor: Descriptor | None, src: str
) -> tuple[list[Wanted], str | None]:
    if descriptor is None:
        return [Wanted(b.path, b.number, b.band) for b in bands], None
    wanted, lacks = [], None
    for band in descriptor.bands:
        key, number = descriptor.place(band)
        asset = item.assets.get(key or "")
        by_name = [b for b in bands if b.common and b.common == band.common_name]
        if asset is not None:
            wanted.append(Wanted(_href(asset), number, band))
        elif len(by_name) == 1:
            declared = {k: v for k, v in band.model_dump().items() if v is not None}
            values = {**by_name[0].band.model_dump(), **declared, "name": band.name}
            joined = DescribedBand.model_validate(values)
            wanted.append(Wanted(by_name[0].path, by_name[0].number, joined))
        else:
            lacks = (
                f"The item {item.id} in {src} has no asset for band {band.name} (it has "
                f"{', '.join(item.assets)}). Choose bands that all items have with data.bands."
            )
    return wanted, lacks


def _with_offset(item: pystac.Item, wanted: Sequence[Wanted]) -> tuple[list[Wanted], str | None]:
    """Settle Sentinel-2's offset, which some catalogues took off the pixels and some did not."""
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
    settled = [
        Wanted(
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
