"""Which bands are read from each tile, and what they are called."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import get_args

from geodino.data.config import DataConfig
from geodino.data.recoding import Channel
from geodino.data.sources.product import sentinel_2_offset
from geodino.data.sources.scenes import Scene
from geodino.errors import BandError, SourceError, suggest
from geodino.geo.bands import Band, Unit, common_name
from geodino.geo.validity import ReadRule
from geodino.io.raster import RasterInfo

_LONGEST_NAME = 40

_UNITS: dict[str, Unit] = {unit.lower(): unit for unit in get_args(Unit)}

Channels = tuple[Channel, ...]


def channels_of(info: RasterInfo, rule: ReadRule, config: DataConfig) -> Channels:
    """Return the data bands of a raster, named as declared, described, coloured, or by position.

    Raises:
        BandError: ``data.band_names`` does not fit.
    """
    numbers = info.data_bands(rule)
    units = info.units or (None,) * info.count
    return tuple(
        Channel(
            info,
            i,
            _band(
                name,
                common_name(name),
                None,
                _UNITS.get((units[i - 1] or "").strip().lower(), "unknown"),
                info.scales[i - 1] if config.scale is None else config.scale,
                info.offsets[i - 1] if config.offset is None else config.offset,
            ),
        )
        for i, name in zip(numbers, _names(info, numbers, config), strict=True)
    )


def declared_channels(
    scene: Scene, infos: Mapping[str, RasterInfo], config: DataConfig, *, by_baseline: bool
) -> Channels:
    """Return the bands of a scene as its descriptor or catalogue declares them.

    Args:
        scene: with ``bands``.
        infos: of its rasters, by path.
        config: ``scale`` and ``offset`` overrule what is declared.
        by_baseline: whether undeclared offsets follow from Sentinel-2's processing baseline.

    Raises:
        SourceError: a raster has fewer bands than declared.
        BandError: nothing tells the offset of a Sentinel-2 scene, or ``data.band_names`` is
            declared beside a descriptor.
    """
    if config.band_names is not None:
        raise BandError(
            "data.band_names names the bands of files that do not; those of "
            f"{scene.name} are named by a descriptor or a catalogue. Leave data.band_names out."
        )
    channels = []
    for wanted in scene.bands or ():
        info, band = infos[wanted.path], wanted.band
        if wanted.number > info.count:
            raise SourceError(
                f"{wanted.path} has {info.count} band(s), but band {band.name} is declared to be "
                f"number {wanted.number}. Mend the descriptor, or remove the file."
            )
        scale = info.scales[wanted.number - 1] if band.scale is None else band.scale
        offset = info.offsets[wanted.number - 1] if band.offset is None else band.offset
        if by_baseline and band.offset is None and config.offset is None:
            found = sentinel_2_offset(wanted.path)
            if found is None:
                raise BandError(
                    f"The offset of {wanted.path} is not known: there is no MTD_MSIL2A.xml above "
                    "it and no processing baseline (N0509) in a folder's name. Declare it for all "
                    "scenes: data.offset: -0.1 (baseline 04.00 and later, from 2022 on) or "
                    "data.offset: 0.0 (earlier)."
                )
            offset = found.value
        channels.append(
            Channel(
                info,
                wanted.number,
                _band(
                    band.name,
                    band.common_name or common_name(band.name),
                    band.wavelength_nm,
                    band.unit,
                    scale if config.scale is None else config.scale,
                    offset if config.offset is None else config.offset,
                ),
            )
        )
    return tuple(channels)


def choose_bands(tiles: Sequence[Channels], config: DataConfig) -> tuple[list[Channels], list[str]]:
    """Pick the bands of every tile in one order, under names that hold for all of them.

    Args:
        tiles: all data bands of each tile.
        config: ``bands``.

    Returns:
        For each tile its channels in the order of the source's bands, named alike, and notes for
        the run card.

    Raises:
        BandError: bands or types of two tiles do not fit; the message names both.
    """
    notes: list[str] = []
    if config.bands is None:
        _one_count(tiles)
        chosen = list(tiles)
    else:
        chosen = [tuple(_pick(w, tile) for w in config.bands) for tile in tiles]
    _one_dtype(chosen)
    names, notes = _common_names(chosen)
    cache: dict[tuple[Band, str], Band] = {}
    out = [
        tuple(_renamed(channel, name, cache) for channel, name in zip(tile, names, strict=True))
        for tile in chosen
    ]
    return out, notes


def _renamed(channel: Channel, name: str, cache: dict[tuple[Band, str], Band]) -> Channel:
    if channel.band.name == name:
        return channel
    key = (channel.band, name)
    if key not in cache:
        update = {"name": name, "common_name": common_name(name)}
        cache[key] = channel.band.model_copy(update=update)
    return Channel(channel.info, channel.number, cache[key])


@lru_cache(maxsize=4096)
def _band(
    name: str,
    common: str | None,
    wavelength_nm: float | None,
    unit: Unit,
    scale: float,
    offset: float,
) -> Band:
    """Make a band; thousands of files share theirs."""
    return Band.model_validate(
        {
            "name": name,
            "common_name": common,
            "wavelength_nm": wavelength_nm,
            "unit": unit,
            "scale": scale,
            "offset": offset,
        }
    )


def _names(info: RasterInfo, numbers: Sequence[int], config: DataConfig) -> tuple[str, ...]:
    if config.band_names is not None:
        if len(config.band_names) != len(numbers):
            raise BandError(
                f"data.band_names declares {len(config.band_names)} bands "
                f"({', '.join(config.band_names)}), but {info.path} has {len(numbers)}. "
                "Declare a name for each data band of the files, or leave such files out."
            )
        return config.band_names
    described = [(info.descriptions[i - 1] or "").strip() for i in numbers]
    if len(set(described)) == len(described) and all(
        0 < len(d) <= _LONGEST_NAME and d.isprintable() for d in described
    ):
        return tuple(described)
    colors = [info.colors[i - 1] for i in numbers]
    colored = {c for c in ("red", "green", "blue") if colors.count(c) == 1}
    use_colors = len(colored) == 3
    return tuple(
        color if use_colors and color in colored else f"band_{i}"
        for i, color in zip(numbers, colors, strict=True)
    )


def _pick(wanted: str | int, tile: Channels) -> Channel:
    if isinstance(wanted, int):
        return _numbered(wanted, tile)
    named = [c for c in tile if c.band.name == wanted]
    named = named or [c for c in tile if c.band.common_name == wanted]
    if not named:
        names = [c.band.name for c in tile]
        common = [c.band.common_name for c in tile if c.band.common_name]
        raise BandError(
            f"{tile[0].info.path} has no band {wanted!r}.{suggest(wanted, [*names, *common])}\n"
            f"  it has:    {', '.join(names)}\n"
            "Change data.bands (--bands of geodino predict and embed), or name the files' bands in "
            "data.band_names."
        )
    return named[0]


def _numbered(wanted: int, tile: Channels) -> Channel:
    """Return a band by its number in the file, or by its place in a scene of several files."""
    one_file = len({c.info.path for c in tile}) == 1
    numbers = [c.number for c in tile] if one_file else list(range(1, len(tile) + 1))
    if wanted not in numbers:
        info = tile[0].info
        alpha = " (its last band is an alpha mask)" if one_file and wanted == info.alpha else ""
        raise BandError(
            f"{info.path} has no data band {wanted}{alpha}; it has {_list(numbers)}. "
            "Change data.bands (--bands of geodino predict and embed); numbers count from 1."
        )
    return tile[numbers.index(wanted)]


def _common_names(tiles: Sequence[Channels]) -> tuple[tuple[str, ...], list[str]]:
    """Return the names all tiles agree on, or names by position with a note why."""
    first = tuple(c.band.name for c in tiles[0])
    for tile in tiles:
        other = tuple(c.band.name for c in tile)
        if other == first:
            continue
        if set(other) == set(first):
            raise BandError(
                f"{tiles[0][0].info.path} stores its bands as {', '.join(first)}, "
                f"but {tile[0].info.path} as {', '.join(other)}. "
                f"Declare the order with data.bands: [{', '.join(first)}]."
            )
        note = (
            f"bands are named by position: {_short(tiles[0])} calls them {', '.join(first)}, "
            f"{_short(tile)} {', '.join(other)} (data.band_names declares names for all)"
        )
        return tuple(f"band_{c.number}" for c in tiles[0]), [note]
    return first, []


def _one_count(tiles: Sequence[Channels]) -> None:
    for tile in tiles:
        if len(tile) != len(tiles[0]):
            raise BandError(
                f"{tiles[0][0].info.path} has {len(tiles[0])} data band(s), but "
                f"{tile[0].info.path} has {len(tile)}. Declare what they share with data.bands "
                "(names, or numbers such as [1, 2, 3]), or name files of one kind."
            )


def _one_dtype(tiles: Sequence[Channels]) -> None:
    first = tiles[0][0].info
    for tile in tiles:
        for channel in tile:
            info = channel.info
            if info.dtype != first.dtype:
                raise BandError(
                    f"{first.path} stores {first.count} band(s) of {first.dtype}, but "
                    f"{info.path} {info.count} of {info.dtype}. Values of several types cannot be "
                    "joined: name files of one type by a pattern, or convert them."
                )


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(i) for i in numbers)


def _short(tile: Channels) -> str:
    return Path(tile[0].info.path).name
