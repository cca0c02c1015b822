"""What metadata tells about tiles, counted and folded: places, blocks, masks, dates."""

import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from math import ceil

from pyproj import CRS
from pyproj.exceptions import CRSError

from geodino.data.inspection import Dates, Layout
from geodino.data.tiles import Tile
from geodino.geo.validity import ReadRule
from geodino.io.raster import RasterInfo

WINDOW = 1024
"""Side of the window whose decoding costs are told, pixels; that of a super-window."""

TINY = 64 * 64
"""Pixels of a block below which looking blocks up costs as much as decoding them."""

_WHOLE = frozenset({"PNG", "JPEG", "GIF", "WEBP", "BMP"})
"""Formats that are decoded from their first row on, whatever their blocks are said to be."""

_CRS_NAME_LENGTH = 60

_TAGS = 4
"""Nodata tags named in a sentence."""


def rasters(tiles: Iterable[Tile]) -> list[RasterInfo]:
    """Return the rasters of tiles, each once, without quality layers."""
    return list({part.info.path: part.info for tile in tiles for part in tile.parts}.values())


def counted(values: Iterable[str]) -> dict[str, int]:
    """Count values, the most frequent first; equal counts in the order of their names."""
    return dict(sorted(Counter(values).items(), key=lambda item: (-item[1], item[0])))


def crs_counts(tiles: Sequence[Tile]) -> dict[str, int]:
    """Count the tiles of each CRS."""
    by_crs = Counter(tile.grid.crs for tile in tiles)
    named = Counter[str]()
    for crs, count in by_crs.items():
        named[crs_name(crs)] += count
    return dict(sorted(named.items(), key=lambda item: (-item[1], item[0])))


@lru_cache(maxsize=512)
def crs_name(crs: str | None) -> str:
    """Return ``EPSG:32618 (WGS 84 / UTM zone 18N)``; ``none`` for no CRS."""
    if crs is None:
        return "none"
    try:
        name = CRS.from_user_input(crs).name[:_CRS_NAME_LENGTH]
    except CRSError:
        return crs[:_CRS_NAME_LENGTH]
    return f"{crs} ({name})" if len(crs) < _CRS_NAME_LENGTH // 2 else f"{name} (no EPSG code)"


def gsd_range(tiles: Sequence[Tile]) -> tuple[float, float] | None:
    """Return the smallest and the largest ground sampling distance, metres."""
    found = [side for tile in tiles if tile.gsd_m for side in tile.gsd_m]
    return (min(found), max(found)) if found else None


def sides(tiles: Sequence[Tile]) -> tuple[int, int, int, int]:
    """Return smallest and largest height, smallest and largest width, pixels."""
    heights, widths = [t.height for t in tiles], [t.width for t in tiles]
    return min(heights), max(heights), min(widths), max(widths)


def layouts(infos: Sequence[RasterInfo]) -> tuple[Layout, ...]:
    """Fold the block layouts of files into the forms that occur, and judge them."""
    forms: dict[tuple[str, str], list[RasterInfo]] = {}
    for info in infos:
        forms.setdefault((_form(info), _remark(info)), []).append(info)
    found = [_layout(form, remark, own) for (form, remark), own in forms.items()]
    return tuple(sorted(found, key=lambda layout: (-layout.files, layout.text)))


def decoding_cost(info: RasterInfo) -> float:
    """Return how many pixels are decoded for each wanted one, where windows are read.

    Windows of ``WINDOW`` pixels are laid on block edges where blocks are no larger than two of
    them, so that each block is decoded once. Of larger blocks every window decodes all that it
    touches, and cuts its part out.
    """
    height, width = info.grid.height, info.grid.width
    block = (height, width) if info.driver in _WHOLE else info.block
    return _axis_cost(height, block[0]) * _axis_cost(width, block[1])


def validity(infos: Sequence[RasterInfo], rule: ReadRule) -> str:
    """Say what makes a pixel invalid, of all that occurs in files."""
    tags = [name for name in nodata_counts(infos) if name != "none"]
    listed = ", ".join(tags[:_TAGS]) + (", ..." if len(tags) > _TAGS else "")
    found = []
    if rule.nodata == "tag" and tags:
        found.append(f"the nodata tag ({listed})")
    elif rule.nodata == "ignore" and tags:
        found.append(f"not the nodata tag ({listed}), which is ignored")
    elif not isinstance(rule.nodata, str):
        found.append(f"the value {rule.nodata:g}")
    found += mask_counts(infos, rule)
    if any(info.dtype.startswith("float") for info in infos):
        found.append("NaN and infinity")
    return "; ".join(found) if found else "nothing: there is no mask and no nodata tag"


def mask_counts(infos: Sequence[RasterInfo], rule: ReadRule) -> dict[str, int]:
    """Count the masks beside the pixels; alpha bands as the rule reads them."""
    words = {
        "shared": "a mask of all bands (in the file or .msk)",
        "per_band": "a mask of each band",
        "nodata_values": "NODATA_VALUES in all bands at once",
    }
    kinds = [words[info.mask] for info in infos if info.mask != "none"]
    alpha = "the alpha band" if rule.alpha == "mask" else "not the band tagged alpha, which is data"
    return counted([*kinds, *(alpha for info in infos if info.alpha is not None)])


def nodata_counts(infos: Sequence[RasterInfo]) -> dict[str, int]:
    """Count nodata tags; files without one as ``none``."""

    def tag(info: RasterInfo) -> str:
        values = dict.fromkeys("none" if v is None else f"{v:g}" for v in info.nodata)
        return ", ".join(values)

    return counted(tag(info) for info in infos)


def dates(tiles: Sequence[Tile]) -> Dates:
    """Return the range of the tiles' dates, and where they came from."""
    known = sorted(tile.datetime for tile in tiles if tile.datetime)
    return Dates(
        first=known[0] if known else None,
        last=known[-1] if known else None,
        known_from=counted(t.datetime_from or "unknown" for t in tiles if t.datetime),
        unknown=len(tiles) - len(known),
        per_year=_sorted(Counter(when[:4] for when in known)),
    )


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items()))


def _form(info: RasterInfo) -> str:
    rows, columns = info.block
    if info.driver in _WHOLE:
        return "pictures decoded from the first row on"
    if rows >= info.grid.height and columns >= info.grid.width:
        return "one block a file"
    if columns >= info.grid.width:
        return "strips of whole rows"
    return f"tiles of {rows} x {columns}"


def _axis_cost(length: int, block: int) -> float:
    if block <= 2 * WINDOW or length <= 2 * WINDOW:
        return 1.0
    windows = ceil(length / WINDOW)
    return windows * min(block, length) / length


def _remark(info: RasterInfo) -> str:
    height, width = info.grid.height, info.grid.width
    if max(height, width) <= 2 * WINDOW:
        return ""  # read at once, whatever its blocks are
    if decoding_cost(info) >= 2:
        return "each window decodes much more than it needs"
    if info.block[0] * info.block[1] < TINY:
        return "blocks are tiny: looking them up costs as much as decoding them"
    return ""


def _layout(form: str, remark: str, infos: Sequence[RasterInfo]) -> Layout:
    worst = max(infos, key=decoding_cost)
    rows = sorted({info.block[0] for info in infos})
    if form == "strips of whole rows":
        form = f"strips of {rows[0]}" + (f" to {rows[-1]}" if len(rows) > 1 else "") + " rows"
    return Layout(
        text=form,
        files=len(infos),
        cost=decoding_cost(worst),
        remark=remark,
        mend=_mend(worst) if remark else "",
    )


def _mend(info: RasterInfo) -> str:
    predictor = 3 if info.dtype.startswith("float") else 2
    target = f"{info.path.rsplit('/', 1)[-1].rsplit('.', 1)[0]}_tiled.tif"
    return (
        "gdal_translate -co TILED=YES -co BLOCKXSIZE=512 -co BLOCKYSIZE=512 -co COMPRESS=ZSTD "
        f"-co PREDICTOR={predictor} -co BIGTIFF=IF_SAFER "
        f"{shlex.quote(info.path)} {shlex.quote(target)}"
    )
