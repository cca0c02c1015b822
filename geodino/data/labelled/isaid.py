"""iSAID: aerial photographs of DOTA with 15 kinds of objects and a background, in patches.

Photographs are cut into patches of 896 pixels that share 384; what lies beyond a small photograph
is invalid and does not count. Two layouts are read:

* as it is published: ``{train,val}/images/P0000.png`` and
  ``{train,val}/Semantic_masks/images/P0000_instance_color_RGB.png``, cut while it is read;
* cut on disk: ``img_dir/{train,val}/NAME.png`` and
  ``ann_dir/{train,val}/NAME_instance_color_RGB.png``, each file a patch. :func:`cut` writes it.

Masks are coloured or hold the numbers of the classes, 255 where they do not count.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from geodino.data.labelled.class_files import class_file, class_files, read_classes
from geodino.data.labelled.class_labels import hash_of
from geodino.data.labelled.classes import ClassTable, Colour
from geodino.data.labelled.common import listed
from geodino.data.labelled.loveda import RGB
from geodino.data.labelled.sets import IGNORED, Image, PartName, SetFacts
from geodino.data.parallel import in_order, thread_count
from geodino.errors import SourceError
from geodino.files import replacing
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool, read

SIDE, OVERLAP = 896, 384
"""Side of a patch, and what neighbours share, pixels."""

COLOURS: dict[str, Colour] = {
    "background": (0, 0, 0), "ship": (0, 0, 63), "storage tank": (0, 63, 63),
    "baseball diamond": (0, 63, 0), "tennis court": (0, 63, 127),
    "basketball court": (0, 63, 191), "ground track field": (0, 63, 255), "bridge": (0, 127, 63),
    "large vehicle": (0, 127, 127), "small vehicle": (0, 0, 127), "helicopter": (0, 0, 191),
    "swimming pool": (0, 0, 255), "roundabout": (0, 191, 127),
    "soccer ball field": (0, 127, 191), "plane": (0, 127, 255), "harbor": (0, 100, 155),
}  # fmt: skip
"""Classes by number, and what stands for each in a coloured mask."""

_MASK = "_instance_color_RGB"
_IMAGES = ("{part}/images", "img_dir/{part}")
_MASKS = ("{part}/Semantic_masks/images", "{part}/Semantic_masks", "ann_dir/{part}")
_PARTS: tuple[PartName, ...] = ("train", "val")
_RULE = ReadRule(alpha="mask", nodata="ignore")


def is_isaid(root: Path) -> bool:
    """Whether a folder holds iSAID: coloured masks lie where they are expected."""
    folders = (root / pattern.format(part=part) for pattern in _MASKS for part in _PARTS)
    return any(_masks(folder) for folder in folders)


def _masks(folder: Path) -> list[Path]:
    return [path for path in listed(folder, ".png") if path.stem.endswith(_MASK)]


@dataclass(frozen=True, slots=True)
class _Photograph:
    image: Path
    mask: Path
    height: int
    width: int
    is_coloured: bool


class IsaidSet:
    """iSAID as a labelled set of patches; keys are ``val/P0000/512_1024`` (first row and column).

    Args:
        root: its folder, in one of the two layouts.
        pool: where open files are kept.

    Raises:
        SourceError: there is no photograph with a mask, or a mask of another size.
    """

    unlabelled: frozenset[PartName] = frozenset()
    colours = tuple(COLOURS.values())

    def __init__(self, root: Path | str, *, pool: HandlePool) -> None:
        self._root = Path(root)
        self._pool = pool
        names = tuple(COLOURS)
        colours = tuple(COLOURS.values())
        self._coloured = ClassTable(
            names=names,
            colours=colours,
            values=tuple((f"#{r:02x}{g:02x}{b:02x}",) for r, g, b in colours),
        )
        numbers = tuple((i,) for i in range(len(names)))
        self._numbered = ClassTable(names=names, colours=colours, values=numbers)
        self._photographs = {part: self._found(part) for part in _PARTS}
        self.parts: Mapping[PartName, tuple[str, ...]] = {
            part: tuple(
                f"{part}/{name}/{top}_{left}"
                for name, one in photographs.items()
                for top in starts(one.height)
                for left in starts(one.width)
            )
            for part, photographs in self._photographs.items()
        }
        if not any(self.parts.values()):
            raise SourceError(
                f"{root} holds no photograph of iSAID with its mask: expected train/images/P0000.png and "
                f"train/Semantic_masks/images/P0000{_MASK}.png, or img_dir and ann_dir."
            )
        self.facts = SetFacts(
            name="iSAID",
            kind="segmentation",
            classes=names,
            bands=RGB,
            dtype="uint8",
            metric="miou",
            notes=(
                f"patches of {SIDE} px share {OVERLAP}: a pixel counts in each patch that holds it",
                "the mean IoU is over all 16 classes, background included",
            ),
            source="iSAID on DOTA's photographs: for academic use only",
        )

    def _found(self, part: PartName) -> dict[str, _Photograph]:
        folders = [self._root / pattern.format(part=part) for pattern in _MASKS]
        masks = sorted(path for folder in folders for path in _masks(folder))
        found: dict[str, _Photograph] = {}
        images = [self._image(part, mask.name.removesuffix(f"{_MASK}.png")) for mask in masks]
        threads = thread_count("auto")
        of_masks = class_files([str(path) for path in masks], threads=threads)
        of_images = class_files([str(path) for path in images], threads=threads)
        for mask, image, theirs, ours in zip(masks, images, of_masks, of_images, strict=True):
            size = ours.grid.height, ours.grid.width
            if (theirs.grid.height, theirs.grid.width) != size:
                raise SourceError(
                    f"{mask} has {theirs.grid.height} x {theirs.grid.width} px, its photograph {image} "
                    f"{size[0]} x {size[1]}: copy both again."
                )
            found[image.stem] = _Photograph(image, mask, *size, theirs.count >= 3)
        return found

    def _image(self, part: PartName, stem: str) -> Path:
        places = [self._root / pattern.format(part=part) / f"{stem}.png" for pattern in _IMAGES]
        for place in places:
            if place.is_file():
                return place
        raise SourceError(f"{places[0]} is missing, but there is a mask for it. Unpack it there.")

    def _at(self, key: str) -> tuple[_Photograph, int, int]:
        part, _, rest = key.partition("/")
        name, _, corner = rest.rpartition("/")
        top, left = corner.split("_")
        return self._photographs[part][name], int(top), int(left)  # type: ignore[index]

    @property
    def fingerprint(self) -> str:
        """A hash of the files' content."""
        photographs = [one for found in self._photographs.values() for one in found.values()]
        return hash_of([str(p) for one in photographs for p in (one.image, one.mask)])

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of a patch: they are all alike."""
        return SIDE, SIDE

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read a patch, or a window of it; invalid beyond the photograph."""
        photograph, top, left = self._at(key)
        where = window or Window(0, 0, SIDE, SIDE)
        part = _inside(photograph, top, left, where)
        pixels = np.zeros((3, where.height, where.width), np.uint8)
        valid = np.zeros(pixels.shape, dtype=bool)
        if part is not None:
            read_here, rows, columns = part
            stored, known = read(
                self._pool, photograph.image, read_here, bands=self._bands(photograph), rule=_RULE
            )
            pixels[:, rows, columns], valid[:, rows, columns] = stored, known
        return pixels, valid

    def _bands(self, photograph: _Photograph) -> list[int]:
        """Grey photographs, of which DOTA has some, are read as red, green and blue alike."""
        return [1, 2, 3] if class_file(str(photograph.image)).count >= 3 else [1, 1, 1]

    def label(self, key: str, window: Window | None = None) -> UInt8[np.ndarray, "h w"]:
        """Read the class of each pixel of a patch, or of a window of it."""
        photograph, top, left = self._at(key)
        where = window or Window(0, 0, SIDE, SIDE)
        part = _inside(photograph, top, left, where)
        found = np.full((where.height, where.width), IGNORED, np.uint8)
        if part is not None:
            read_here, rows, columns = part
            table = self._coloured if photograph.is_coloured else self._numbered
            file = class_file(str(photograph.mask))
            found[rows, columns] = read_classes(self._pool, file, table, read_here)
        return found

    def traits(self, key: str) -> Mapping[str, str]:
        """Return the photograph a patch was cut from."""
        return {"photograph": key.partition("/")[2].rpartition("/")[0]}

    def outline(self, key: str) -> None:
        """Return None: photographs have no place on the Earth."""
        return


def starts(length: int) -> tuple[int, ...]:
    """Return where patches begin along one side: the last one is moved back inside."""
    step = SIDE - OVERLAP
    last = max(0, length - SIDE)
    return tuple(sorted({min(at, last) for at in range(0, last + step, step)}))


def _inside(
    photograph: _Photograph, top: int, left: int, window: Window
) -> tuple[Window, slice, slice] | None:
    """The part of a window of a patch that the photograph has: there, and rows and columns here."""
    first = top + window.top, left + window.left
    height = min(window.height, photograph.height - first[0])
    width = min(window.width, photograph.width - first[1])
    if height <= 0 or width <= 0:
        return None
    return Window(*first, height, width), slice(0, height), slice(0, width)


def cut(found: IsaidSet, folder: Path | str) -> int:
    """Write all patches as files, which are faster to read at random; return how many.

    Patches of small photographs are padded with 0, their masks with 255. Opening the folder gives
    the same patches again.
    """
    from PIL import Image as Picture

    root = Path(folder)

    def write(place: tuple[PartName, str]) -> None:
        part, key = place
        name = key.partition("/")[2].replace("/", "_")
        pixels, _ = found.image(key)
        pictures = {
            f"img_dir/{part}/{name}.png": pixels.transpose(1, 2, 0),
            f"ann_dir/{part}/{name}{_MASK}.png": found.label(key),
        }
        for path, array in pictures.items():
            with replacing(root / path) as temporary:
                Picture.fromarray(np.ascontiguousarray(array)).save(temporary, format="PNG")

    keys = [(part, key) for part, keys in found.parts.items() for key in keys]
    for _ in in_order(write, keys, threads=thread_count("auto")):
        pass
    return len(keys)
