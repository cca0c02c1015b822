"""Which bands are read from each file, and what they are called."""

from collections.abc import Sequence
from pathlib import Path

from geodino.data.config import DataConfig
from geodino.errors import BandError, suggest
from geodino.geo.bands import Band, common_name
from geodino.geo.validity import ReadRule
from geodino.io.raster import RasterInfo

_LONGEST_NAME = 40

_Names = tuple[str, ...]
_Numbers = tuple[int, ...]


def choose_bands(
    infos: Sequence[RasterInfo], rule: ReadRule, config: DataConfig
) -> tuple[tuple[Band, ...], list[tuple[int, ...]], list[str]]:
    """Join the files' bands under one list of names.

    Returns:
        The bands of the source; for each file the numbers of its bands in that order; and notes
        for the run card.

    Raises:
        BandError: bands or types of two files do not fit; the message names both.
    """
    _one_dtype(infos)
    numbers = [info.data_bands(rule) for info in infos]
    names = [_names(info, own, config) for info, own in zip(infos, numbers, strict=True)]
    notes: list[str] = []
    if config.bands is None:
        _one_count(infos, numbers)
        common, notes = _common_names(infos, names, numbers[0])
        chosen = numbers
    else:
        wanted = config.bands
        chosen = [
            tuple(_number(w, info, own, called) for w in wanted)
            for info, own, called in zip(infos, numbers, names, strict=True)
        ]
        used = [
            tuple(called[own.index(i)] for i in picked)
            for own, called, picked in zip(numbers, names, chosen, strict=True)
        ]
        common, notes = _common_names(infos, used, chosen[0])
    first = _decoding(infos[0], chosen[0])
    bands = tuple(
        Band(name=name, common_name=common_name(name), scale=scale, offset=offset)
        for name, scale, offset in zip(common, *first, strict=True)
    )
    for info, picked in zip(infos, chosen, strict=True):
        if _decoding(info, picked) != first:
            notes.append(
                f"scale or offset of {_short(info)} differ from those of {_short(infos[0])}: "
                "values are used as stored, so one stored value has two meanings"
            )
            break
    return bands, chosen, notes


def _names(info: RasterInfo, numbers: _Numbers, config: DataConfig) -> _Names:
    """Name the data bands of a file: as declared, described, coloured, or by position."""
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


def _number(wanted: str | int, info: RasterInfo, numbers: _Numbers, names: _Names) -> int:
    if isinstance(wanted, int):
        if wanted not in numbers:
            alpha = " (its last band is an alpha mask)" if wanted == info.alpha else ""
            raise BandError(
                f"{info.path} has no data band {wanted}{alpha}; it has {_list(numbers)}. "
                "Change data.bands; numbers count from 1."
            )
        return wanted
    if wanted not in names:
        raise BandError(
            f"{info.path} has no band {wanted!r}.{suggest(wanted, names)}\n"
            f"  it has:    {', '.join(names)}\n"
            "Change data.bands, or name the files' bands in data.band_names."
        )
    return numbers[names.index(wanted)]


def _common_names(
    infos: Sequence[RasterInfo], names: Sequence[_Names], numbers: _Numbers
) -> tuple[_Names, list[str]]:
    """Return the names all files agree on, or names by position with a note why."""
    first = names[0]
    for info, other in zip(infos, names, strict=True):
        if other == first:
            continue
        if set(other) == set(first):
            raise BandError(
                f"{infos[0].path} stores its bands as {', '.join(first)}, "
                f"but {info.path} as {', '.join(other)}. "
                f"Declare the order with data.bands: [{', '.join(first)}]."
            )
        note = (
            f"bands are named by position: {_short(infos[0])} calls them {', '.join(first)}, "
            f"{_short(info)} {', '.join(other)} (data.band_names declares names for all)"
        )
        return tuple(f"band_{i}" for i in numbers), [note]
    return first, []


def _one_count(infos: Sequence[RasterInfo], numbers: Sequence[_Numbers]) -> None:
    for info, own in zip(infos, numbers, strict=True):
        if len(own) != len(numbers[0]):
            raise BandError(
                f"{infos[0].path} has {len(numbers[0])} data band(s), but {info.path} has "
                f"{len(own)}. Declare what they share with data.bands (names, or numbers such as "
                "[1, 2, 3]), or name files of one kind."
            )


def _one_dtype(infos: Sequence[RasterInfo]) -> None:
    for info in infos:
        if info.dtype != infos[0].dtype:
            raise BandError(
                f"{infos[0].path} stores {infos[0].count} band(s) of {infos[0].dtype}, but "
                f"{info.path} {info.count} of {info.dtype}. Values of several types cannot be "
                "joined: name files of one type by a pattern, or convert them."
            )


def _decoding(info: RasterInfo, numbers: _Numbers) -> tuple[tuple[float, ...], tuple[float, ...]]:
    return tuple(info.scales[i - 1] for i in numbers), tuple(info.offsets[i - 1] for i in numbers)


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(i) for i in numbers)


def _short(info: RasterInfo) -> str:
    return Path(info.path).name
