"""From the name of a suite, or a folder, to the labelled sets that are there, and what is missing."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from geodino.data.labelled.generated import mini_names, open_mini
from geodino.data.labelled.geobench import find_geobench, open_geobench, v1_name
from geodino.data.labelled.geobench_table import ALIASES, V1
from geodino.data.labelled.image_folder import find_suite
from geodino.data.labelled.sets import LabelledSet, Missing
from geodino.data.labelled.torchgeo_set import TORCHGEO, find_torchgeo, open_torchgeo
from geodino.data.labelled.tortilla import find_tortillas, open_tortilla
from geodino.data.labelled.tortilla_table import V2
from geodino.data.labelled.yaml_config import is_labelled
from geodino.data.labelled.yaml_set import open_yaml
from geodino.data.sources.descriptor import descriptor_folder
from geodino.errors import SourceError, suggest

SUITES = ("mini", "geobench-v1", "geobench-v2", "torchgeo")
"""Suites by name; each with ``/SET`` behind it is one of its sets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SetOpener:
    """A set that is there, not yet opened."""

    name: str
    open: Callable[[], LabelledSet]
    """Opens it; raises SourceError where its files are damaged."""

    has_partitions: bool = False
    """Whether its benchmark cuts it in several ways."""


Found = tuple[list[SetOpener], list[Missing]]


def open_sets(suite: str, data: Path | None = None, *, partition: str = "default") -> Found:
    """Find the sets of a suite; no image is read.

    Args:
        suite: ``mini``; ``geobench-v1``, ``geobench-v2``, or one set of theirs
            (``geobench-v1/m-eurosat``); ``torchgeo/EuroSAT``; a folder of class folders, of a
            ``dataset.yaml``, or of benchmark files; or the name of a folder in ``datasets/``.
        data: where the files of a named suite lie; None: ``$GEO_BENCH_DIR`` for GEO-Bench.
        partition: of GEO-Bench v1: ``0.01x_train`` and so on.

    Returns:
        The sets that can be opened, and those that cannot with the reason and the cure.

    Raises:
        SourceError: there is no suite, set or folder of that name, or it has no partitions.
    """
    found = _found(suite, data, partition)
    whole = [one.name for one in found[0] if not one.has_partitions]
    if partition != "default" and whole:
        raise SourceError(
            f"{whole[0]} has no partition {partition!r}: only sets of GEO-Bench v1 have partitions. "
            "Leave --partition out."
        )
    return found


def _found(suite: str, data: Path | None, partition: str) -> Found:
    path = Path(suite).expanduser()
    family, _, one = suite.partition("/")
    if family in SUITES:  # a folder of that name is ./NAME
        return _named(family, one, data, partition)
    if path.exists():
        return _in_folder(path, partition)
    own = descriptor_folder() / suite
    if own.is_dir() and is_labelled(own):
        return [SetOpener(name=suite, open=partial(open_yaml, own))], []
    known = [*SUITES, *V1, *V2, *TORCHGEO]
    near = suggest(suite, known)
    raise SourceError(
        f"There is no suite and no folder {suite!r}.{near} There are: mini, geobench-v1[/SET], "
        "geobench-v2[/SET], torchgeo/SET, or a folder of labelled images."
    )


def _named(family: str, one: str, data: Path | None, partition: str) -> Found:
    if family == "mini":
        names = _one_of(one, mini_names(), family)
        return [SetOpener(name=name, open=partial(open_mini, name)) for name in names], []
    if family == "torchgeo":
        if not one:
            raise SourceError(
                f"Name a data set of torchgeo: {', '.join(TORCHGEO)} (torchgeo/NAME)."
            )
        missing = find_torchgeo(one, data)
        if missing is not None or data is None:
            return [], [missing] if missing else []
        return [SetOpener(name=one, open=partial(open_torchgeo, one, data))], []
    place = data or _geobench_place(family)
    if family == "geobench-v1":
        return _geobench_v1(_one_of(ALIASES.get(one, one), tuple(V1), family), place, partition)
    return _geobench_v2(_one_of(one, tuple(V2), family), place)


def _geobench_place(family: str) -> Path | None:
    """Where GEO-Bench lies if nobody says it: its variable, or a folder called like the suite."""
    if "GEO_BENCH_DIR" in os.environ:
        return Path(os.environ["GEO_BENCH_DIR"])
    return Path(family) if Path(family).is_dir() else None


def _geobench_v1(names: Sequence[str], place: Path | None, partition: str) -> Found:
    found = find_geobench(place) if place else {}
    openers = [_geobench_set(n, found[n], partition) for n in names if n in found]
    cure = (
        "Download it from huggingface.co/datasets/recursix/geo-bench-1.0, unzip it, and name the "
        "folder that holds classification_v1.0 and segmentation_v1.0 with --data."
    )
    return openers, [_absent(n, place, f"a folder {n}", cure) for n in names if n not in found]


def _geobench_set(name: str, folder: Path, partition: str) -> SetOpener:
    opens = partial(open_geobench, folder, partition=partition)
    return SetOpener(name=name, open=opens, has_partitions=True)


def _geobench_v2(names: Sequence[str], place: Path | None) -> Found:
    found = find_tortillas(place) if place else {}
    openers, missing = [], []
    for name in names:
        if V2[name].kind == "detection":
            missing.append(
                Missing(
                    name=name,
                    reason="boxes are not read from tortillas",
                    cure="Write the labels as COCO's JSON and measure with geodino finetune detection.",
                )
            )
        elif name in found:
            openers.append(
                SetOpener(name=name, open=partial(open_tortilla, found[name], name=name))
            )
        else:
            cure = f"Download it from huggingface.co/datasets/aialliance/{name} and name its folder with --data."
            missing.append(_absent(name, place, f"{name}.tortilla", cure))
    return openers, missing


def _absent(name: str, place: Path | None, what: str, cure: str) -> Missing:
    reason = "no folder was named" if place is None else f"{place} has no {what}"
    return Missing(
        name=name, reason=reason, cure=cure, looked_at=() if place is None else (str(place),)
    )


def _one_of(one: str, names: Sequence[str], family: str) -> Sequence[str]:
    if one and one not in names:
        raise SourceError(
            f"{family} has no set {one!r}.{suggest(one, names)} It has: {', '.join(names)}."
        )
    return [one] if one else names


def _in_folder(path: Path, partition: str) -> Found:
    """A folder or file that was named itself."""
    if is_labelled(path):
        name = (path if path.is_dir() else path.parent).resolve().name
        return [SetOpener(name=name, open=partial(open_yaml, path))], []
    tortillas = find_tortillas(path)
    if path.suffix == ".tortilla" and not tortillas:
        return [SetOpener(name=path.stem, open=partial(open_tortilla, path))], []
    if path.is_file() and not tortillas:
        raise SourceError(
            f"{path} is no labelled set. Name a folder, a dataset.yaml with the key `kind`, or a "
            ".tortilla file."
        )
    found = find_geobench(path) if path.is_dir() else {}
    if found:
        return _geobench_v1([n for n in V1 if n in found], path, partition)
    if v1_name(path) is not None:
        return [_geobench_set(path.name, path, partition)], []
    if tortillas:
        return _geobench_v2([n for n in V2 if n in tortillas], path)
    return [SetOpener(name=path.resolve().name, open=partial(find_suite, path))], []
