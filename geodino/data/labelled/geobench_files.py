"""The files of a GEO-Bench v1 data set: samples in HDF5, lists in JSON, metadata in pickles."""

import ast
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from jaxtyping import Shaped

from geodino.data.labelled.common import HDF5_DAMAGE
from geodino.data.labelled.geobench_table import split_date
from geodino.data.labelled.restricted_pickle import Record, restricted_loads
from geodino.data.labelled.sets import PARTS, BandStatistics, PartName
from geodino.errors import SourceError, suggest

_PARTITION = "_partition.json"

_NAMES: Mapping[str, PartName] = {"train": "train", "valid": "val", "val": "val", "test": "test"}


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open a sample; whatever HDF5 says of damage becomes one sentence.

    Raises:
        SourceError: the file is missing, cut off or no HDF5.
    """
    if not path.is_file():
        raise SourceError(
            f"{path} does not exist, though the partition names it. Download the data set again, or "
            "take another partition."
        )
    try:
        with h5py.File(path, "r") as file:
            yield file
    except HDF5_DAMAGE as error:
        said = str(error).split("\n")[0]
        raise SourceError(
            f"{path} cannot be read as HDF5 ({said}): it is damaged or was cut off in transfer. "
            "Download the data set again."
        ) from error


def metadata(file: h5py.File, path: Path) -> dict[str, Any]:
    """Return what the sample's attribute ``pickle`` holds: label, dates, places, by name.

    Raises:
        SourceError: there is no such attribute, or it asks for what is not read.
    """
    text = file.attrs.get("pickle")
    if isinstance(text, bytes):
        text = text.decode("ascii", errors="replace")
    if not isinstance(text, str):
        raise SourceError(
            f"{path} has no attribute 'pickle', which holds the label; it is no sample of GEO-Bench "
            "v1. Remove it, or download the data set again."
        )
    try:
        data = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise SourceError(
            f"The attribute 'pickle' of {path} is no text of bytes ({type(error).__name__}). Download "
            "the data set again."
        ) from None
    if not isinstance(data, bytes):
        raise SourceError(
            f"The attribute 'pickle' of {path} holds {type(data).__name__}, not bytes. Download the "
            "data set again."
        )
    values = restricted_loads(data, source=str(path))
    if not isinstance(values, dict):
        raise SourceError(f"The attribute 'pickle' of {path} holds no names. Download it again.")
    return values


def task_record(folder: Path) -> Record | None:
    """Return what ``task_specs.pkl`` says, as a record; None where there is no such file."""
    path = folder / "task_specs.pkl"
    if not path.is_file():
        return None
    made = restricted_loads(path.read_bytes(), source=str(path))
    return made if isinstance(made, Record) else None


def class_names(record: Record | None, count: int) -> tuple[str, ...]:
    """Return names of the classes as the task's record has them, else ``class 0`` and so on."""
    label = record.get("label_type") if record is not None else None
    # Classification and maps keep them as _class_names, several classes an image as class_name.
    fields = ("class_names", "_class_names", "class_name")
    kept = [label.get(field) for field in fields] if isinstance(label, Record) else []
    names = next((found for found in kept if found), None)
    if isinstance(names, (list, tuple)):
        return tuple(str(name) for name in names)
    found = label.get("n_classes") if isinstance(label, Record) else None
    count = found if isinstance(found, int) and found > 0 else count
    return tuple(f"class {i}" for i in range(count))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        SourceError: it is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read as JSON ({error}). Download it again.") from error


def partitions(folder: Path) -> list[str]:
    """Return the names of a data set's partitions."""
    return sorted(p.name.removesuffix(_PARTITION) for p in folder.glob(f"*{_PARTITION}"))


def read_partition(folder: Path, name: str) -> dict[PartName, tuple[str, ...]]:
    """Return the keys of each part in the order of the file.

    Raises:
        SourceError: there is no such partition, or it names no parts.
    """
    path = folder / f"{name}{_PARTITION}"
    if not path.is_file():
        have = partitions(folder)
        raise SourceError(
            f"{folder} has no partition {name!r}.{suggest(name, have)} It has: "
            f"{', '.join(have) or 'none'}. Name one of them, or download the missing file."
        )
    values = read_json(path)
    parts: dict[PartName, tuple[str, ...]] = {}
    for word, keys in values.items() if isinstance(values, dict) else ():
        if word in _NAMES and isinstance(keys, list):
            parts[_NAMES[word]] = tuple(str(key) for key in keys)
    if not parts.get("train") or not parts.get("test"):
        raise SourceError(
            f"{path} lists no images for train or none for test. Take another partition, or "
            "download it again."
        )
    first: dict[str, PartName] = {}
    for part, keys in parts.items():
        for key in keys:
            if first.setdefault(key, part) != part:
                raise SourceError(
                    f"{path} lists {key} in {first[key]} and in {part}, so scores would be of images "
                    "trained on. Download the partition again, or strike one of them."
                )
    return {part: parts[part] for part in PARTS if part in parts}


def statistics_of(folder: Path, names: Sequence[str]) -> BandStatistics | None:
    """Return the published statistics of bands; None where the file or a band of it lacks."""
    path = folder / "band_stats.json"
    if not path.is_file():
        return None
    values = read_json(path)
    # Keys may carry a date, as the datasets do.
    plain = {split_date(key)[0]: row for key, row in values.items()}
    rows = [plain.get(name) for name in names]
    wanted = ("min", "max", "mean", "std")
    if any(not isinstance(row, dict) or not set(wanted) <= set(row) for row in rows):
        return None
    low, high, mean, std = (tuple(float(row[w]) for row in rows if row) for w in wanted)
    return BandStatistics(low=low, high=high, mean=mean, std=std)


def dates_of(file: h5py.File) -> dict[str, list[str]]:
    """Return the dataset names of each band of a sample, ordered by date."""
    found: dict[str, list[str]] = {}
    for name in sorted(file.keys(), key=lambda key: (split_date(key)[0], _date_key(key))):
        found.setdefault(split_date(name)[0], []).append(name)
    return found


def _date_key(name: str) -> tuple[int, str]:
    date = split_date(name)[1]
    return len(date), date


def to_size(
    values: Shaped[np.ndarray, "h w"], size: tuple[int, int], what: str
) -> Shaped[np.ndarray, "h2 w2"]:
    """Repeat pixels of a coarser band until it has the size of the others.

    Raises:
        SourceError: the sizes are no multiples.
    """
    if values.shape == size:
        return values
    rows, columns = size[0] // max(values.shape[0], 1), size[1] // max(values.shape[1], 1)
    if (values.shape[0] * rows, values.shape[1] * columns) != size or rows == 0 or columns == 0:
        raise SourceError(
            f"{what} has {values.shape[0]} x {values.shape[1]} pixels, which is no part of the "
            f"{size[0]} x {size[1]} of its image. Leave the band out, or download the file again."
        )
    return np.repeat(np.repeat(values, rows, axis=0), columns, axis=1)
