"""Boxes in COCO's JSON files beside image files.

``images`` (id, file_name, height, width), ``categories`` (id, name; ids need not follow each other)
and ``annotations`` (image_id, category_id, bbox as left, top, width, height; iscrowd).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from geodino.data.config import DataConfig
from geodino.data.labelled.boxes import (
    PICTURES,
    BoxCounts,
    BoxPicture,
    Other,
    PictureBoxes,
    checked,
)
from geodino.data.labelled.parts import part_in
from geodino.data.labelled.sets import PartName, SetFacts
from geodino.data.naming import channels_of
from geodino.errors import SourceError, suggest
from geodino.geo.validity import ReadRule
from geodino.io.raster import HandlePool, describe

_LISTS = ("images", "annotations", "categories")
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "images": ("id", "file_name", "height", "width"),
    "categories": ("id", "name"),
    "annotations": ("image_id", "category_id"),
}
"""What each row of a list needs; a box is asked for where it is read."""

_COLOURS = 3

_OF_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")


def open_coco(
    images: Path | str,
    files: Mapping[PartName, Path | str],
    *,
    pool: HandlePool,
    name: str = "COCO",
    gsd_m: float | None = None,
    classes: Sequence[str] | None = None,
    other: Other = "refuse",
) -> PictureBoxes:
    """Open images with labels in COCO's form; keys are ``train/FILE_NAME``.

    Crowds are difficult boxes. Images without annotations are images without objects. Where a file
    name is not there below ``images``, it is looked for in its folder named as the part.

    Args:
        images: the folder that the file names start from.
        files: the JSON file of each part; all have the same categories.
        pool: where open files are kept.
        name: of the set.
        gsd_m: ground sampling distance, metres, where it is known.
        classes: names of the categories in order; None takes all, in the order of their ids.
        other: what becomes of objects of other categories.

    Raises:
        SourceError: a file is damaged, or an image or category is missing.
    """
    root = Path(images)
    counts = BoxCounts()
    pictures: dict[str, BoxPicture] = {}
    parts: dict[PartName, tuple[str, ...]] = {}
    names: tuple[str, ...] | None = None
    labels = {part: Path(path) for part, path in files.items()}
    for part, path in labels.items():
        content = _read(path)
        ids, found = _categories(content["categories"], path, classes)
        if names is not None and found != names:
            raise SourceError(
                f"{path} has other categories ({', '.join(found)}) than the part before it "
                f"({', '.join(names)}): one model tells one list of classes. Write the same list."
            )
        names = found
        own = _pictures(content, _Where(root, part, path), ids, counts, other=other)
        parts[part] = tuple(f"{part}/{key}" for key in own)
        pictures |= {f"{part}/{key}": picture for key, picture in own.items()}
    if names is None or not pictures:
        raise SourceError(f"{', '.join(map(str, labels.values())) or 'No file'} lists no image.")
    suffix = next(iter(pictures.values())).path.suffix.lower()
    described = (describe(picture.path) for picture in pictures.values())
    first = next(described)
    if suffix in _OF_PICTURES and first.count < _COLOURS:
        # A grey photograph among coloured ones is read as red, green and blue alike.
        first = next((info for info in described if info.count >= _COLOURS), first)
    rule = PICTURES if suffix in _OF_PICTURES else ReadRule()
    facts = SetFacts(
        name=name,
        kind="detection",
        classes=names,
        bands=tuple(channel.band for channel in channels_of(first, rule, DataConfig())),
        dtype=first.dtype,
        metric="map50",
        gsd_m=gsd_m,
        notes=counts.words(),
        source=str(root),
    )
    return PictureBoxes(
        facts=facts, parts=parts, pictures=pictures,
        label_files=tuple(labels.values()), rule=rule, pool=pool,
    )  # fmt: skip


def _read(path: Path) -> Mapping[str, Sequence[Mapping[str, Any]]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}): name COCO's JSON.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise SourceError(f"{path} is not JSON ({error}): unpack it again.") from error
    missing = [n for n in _LISTS if not isinstance(content, dict) or n not in content]
    if missing:
        raise SourceError(
            f"{path} has no list {missing[0]!r}, and COCO's JSON has {', '.join(_LISTS)}: name the file "
            "of boxes (instances)."
        )
    for name in _LISTS:
        rows = content[name]
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise SourceError(f"{path}: {name!r} is no list of objects: unpack the file again.")
        for row in rows:
            _check_fields(name, row, path)
    return content  # type: ignore[no-any-return]


def _check_fields(name: str, row: Mapping[str, Any], path: Path) -> None:
    """Refuse a row that lacks what is read of it."""
    which = f"{path}: one of {name} (id {row.get('id')!r})"
    for field in _FIELDS[name]:
        if not isinstance(row.get(field), (int, float, str)):
            raise SourceError(f"{which} has no {field}: mend it.")
    for field in ("height", "width"):
        value = row.get(field)
        if name == "images" and (not isinstance(value, int) or value < 1):
            raise SourceError(f"{which} has the {field} {value!r}, and whole pixels are needed.")
    if row.get("iscrowd", 0) not in (0, 1):
        raise SourceError(f"{which} has iscrowd {row['iscrowd']!r}, which is neither 0 nor 1.")


def _id(value: Any) -> str:
    """An id as it is compared: 7, 7.0 and "7" are one."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)


def _categories(
    given: Sequence[Mapping[str, Any]], path: Path, wanted: Sequence[str] | None
) -> tuple[Mapping[str, int | None], tuple[str, ...]]:
    """The number of each category by its id, None for one that is not wanted, and the names."""
    ordered = sorted(given, key=lambda one: (len(_id(one["id"])), _id(one["id"])))
    names = tuple(str(one["name"]) for one in ordered)
    ids = {_id(one["id"]): number for number, one in enumerate(ordered)}
    if not names or len(ids) < len(names) or len(set(names)) < len(names):
        raise SourceError(f"{path}: categories need ids and names of their own: mend the list.")
    if wanted is None:
        return ids, names
    for name in wanted:
        if name not in names:
            raise SourceError(
                f"{path} has no category {name!r} (labels.classes); it has {', '.join(names)}."
                f"{suggest(name, names)}"
            )
    numbers = {name: number for number, name in enumerate(wanted)}
    return {i: numbers.get(names[number]) for i, number in ids.items()}, tuple(wanted)


@dataclass(frozen=True)
class _Where:
    """Where the images of a file lie."""

    root: Path
    part: PartName
    labels: Path

    def find(self, name: str) -> Path:
        """Return the file of an image.

        Raises:
            SourceError: it is not there.
        """
        for folder in (self.root, *self._folders):
            if (folder / name).is_file():
                return folder / name
        raise SourceError(
            f"{self.labels} lists {self.root / name}, which is not there: unpack the images."
        )

    @cached_property
    def _folders(self) -> tuple[Path, ...]:
        folders = (path for path in sorted(self.root.iterdir()) if path.is_dir())
        return tuple(path for path in folders if part_in(path.name) == self.part)


def _pictures(
    content: Mapping[str, Sequence[Mapping[str, Any]]],
    where: _Where,
    ids: Mapping[str, int | None],
    counts: BoxCounts,
    *,
    other: Other,
) -> dict[str, BoxPicture]:
    path = where.labels
    of: dict[str, list[tuple[Mapping[str, Any], int]]] = {}
    names: set[str] = set()
    for one in content["images"]:
        if _id(one["id"]) in of or str(one["file_name"]) in names:
            raise SourceError(
                f"{path} lists the image {one['file_name']} (id {one['id']}), or its id, twice: each "
                "image needs one row. Mend it."
            )
        of[_id(one["id"])] = []
        names.add(str(one["file_name"]))
    for one in content["annotations"]:
        if _id(one["image_id"]) not in of:
            raise SourceError(
                f"{path}: annotation {one.get('id')} is of image {one.get('image_id')}, which is not "
                "in its list of images: mend it."
            )
        if _id(one["category_id"]) not in ids:
            raise SourceError(
                f"{path}: annotation {one.get('id')} has the category {one.get('category_id')}, which "
                f"is not listed.{suggest(_id(one['category_id']), ids)} Mend it."
            )
        number = ids[_id(one["category_id"])]
        if number is not None:
            of[_id(one["image_id"])].append((one, number))
        elif other == "ignore":
            counts.other += 1
        else:
            raise SourceError(
                f"{path}: annotation {one.get('id')} has the category {one['category_id']}, which "
                "labels.classes does not name: add it there, or set labels.other: ignore."
            )
    made: dict[str, BoxPicture] = {}
    for image in content["images"]:
        size = (int(image["height"]), int(image["width"]))
        found = of[_id(image["id"])]
        made[str(image["file_name"])] = BoxPicture(
            path=where.find(str(image["file_name"])),
            size=size,
            boxes=checked(
                [_corners(one, path) for one, _ in found],
                [number for _, number in found],
                [bool(one.get("iscrowd", 0)) for one, _ in found],
                size=size, source=f"{path} ({image['file_name']})", counts=counts,
            ),
        )  # fmt: skip
    return made


def _corners(one: Mapping[str, Any], path: Path) -> list[float]:
    box = one.get("bbox")
    if not isinstance(box, list) or len(box) != 4:
        raise SourceError(
            f"{path}: annotation {one.get('id')} has no bbox of four numbers (left, top, width, "
            "height): mend it."
        )
    try:
        left, top, width, height = (float(value) for value in box)
    except (TypeError, ValueError):
        raise SourceError(f"{path}: annotation {one.get('id')} has a bbox of no numbers.") from None
    return [left, top, left + width, top + height]
