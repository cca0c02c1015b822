"""LoveDA: land cover of Chinese towns and country at 0.3 m, as it is unpacked.

``{Train,Val,Test}/{Urban,Rural}/{images_png,masks_png}/N.png``, 1024 x 1024. Masks hold 0 for no
data and 1 to 7 for the classes; the server that scores the test part wants 0 to 6.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from geodino.data.labelled.class_files import ClassFile, class_file, read_classes
from geodino.data.labelled.class_labels import hash_of
from geodino.data.labelled.classes import ClassTable, Colour
from geodino.data.labelled.common import listed
from geodino.data.labelled.sets import Image, PartName, SetFacts
from geodino.errors import SourceError
from geodino.files import replacing
from geodino.geo.bands import Band
from geodino.geo.validity import ReadRule
from geodino.geo.windows import Window
from geodino.io.raster import HandlePool, read

CLASSES = ("background", "building", "road", "water", "barren", "forest", "agriculture")

COLOURS: tuple[Colour, ...] = (
    (255, 255, 255), (255, 0, 0), (255, 255, 0), (0, 0, 255), (159, 129, 183), (0, 255, 0),
    (255, 195, 128),
)  # fmt: skip

_FOLDERS: dict[PartName, str] = {"train": "Train", "val": "Val", "test": "Test"}
_REGIONS = ("Urban", "Rural")
_SIDE = 1024
_RULE = ReadRule(alpha="mask", nodata="ignore")

RGB = tuple(Band(name=n, common_name=n) for n in ("red", "green", "blue"))
"""Bands of a picture."""


def is_loveda(root: Path) -> bool:
    """Whether a folder holds LoveDA."""
    return any(
        (_folder(root, part) / region / "images_png").is_dir()
        for part in _FOLDERS
        for region in _REGIONS
    )


def _folder(root: Path, part: PartName) -> Path:
    """Where the regions of a part lie: Train.zip holds a folder Train, and may lie in another."""
    name = _FOLDERS[part]
    return root / name / name if (root / name / name).is_dir() else root / name


class LovedaSet:
    """LoveDA as a labelled set; keys are ``train/Urban/1366``.

    Args:
        root: the folder that holds Train, Val, Test.
        pool: where open files are kept.

    Attributes:
        unlabelled: parts whose labels are not public.

    Raises:
        SourceError: there is no image of it.
    """

    unlabelled: frozenset[PartName] = frozenset({"test"})
    colours = COLOURS

    def __init__(self, root: Path | str, *, pool: HandlePool) -> None:
        self._root = Path(root)
        self._pool = pool
        self.parts: Mapping[PartName, tuple[str, ...]] = {
            part: self._keys(part) for part in _FOLDERS
        }
        if not any(self.parts.values()):
            raise SourceError(
                f"{root} holds no image of LoveDA: expected Train/Urban/images_png/*.png and its "
                "neighbours. Unpack Train.zip, Val.zip and Test.zip there."
            )
        self.facts = SetFacts(
            name="LoveDA",
            kind="segmentation",
            classes=CLASSES,
            bands=RGB,
            dtype="uint8",
            metric="miou",
            gsd_m=0.3,
            notes=(
                "0 in masks is no data: it is neither learnt from nor scored; 1 to 7 are the classes",
                "labels of the test part are not public: its maps are scored by the set's server",
            ),
            source="LoveDA (arXiv 2110.08733), CC BY-NC-SA 4.0: not for commercial use",
        )
        self._table = ClassTable(
            names=CLASSES,
            values=tuple((i,) for i in range(1, len(CLASSES) + 1)),
            colours=COLOURS,
            ignored=frozenset({0}),
        )

    def _keys(self, part: PartName) -> tuple[str, ...]:
        found = []
        for region in _REGIONS:
            folder = _folder(self._root, part) / region / "images_png"
            stems = sorted((p.stem for p in listed(folder, ".png")), key=lambda s: (len(s), s))
            found += [f"{part}/{region}/{stem}" for stem in stems]
        return tuple(found)

    def _path(self, key: str, what: str) -> Path:
        part, region, stem = key.split("/")
        return _folder(self._root, part) / region / what / f"{stem}.png"  # type: ignore[arg-type]

    @property
    def fingerprint(self) -> str:
        """A hash of the files' content; their paths say the part."""
        keys = [key for keys in self.parts.values() for key in keys]
        paths = [self._path(key, "images_png") for key in keys]
        paths += [self._path(k, "masks_png") for k in keys if not k.startswith("test/")]
        return hash_of([str(path) for path in paths])

    def size(self, key: str) -> tuple[int, int]:
        """Return height and width of an image."""
        grid = class_file(str(self._path(key, "images_png"))).grid
        return grid.height, grid.width

    def image(self, key: str, window: Window | None = None) -> Image:
        """Read an image, or a window of it."""
        path = self._path(key, "images_png")
        return read(self._pool, path, window, bands=[1, 2, 3], rule=_RULE)

    def label(self, key: str, window: Window | None = None) -> UInt8[np.ndarray, "h w"]:
        """Read the class of each pixel of an image, or of a window of it.

        Raises:
            SourceError: the part has no public labels, or the mask is missing or damaged.
        """
        if key.startswith("test/"):
            raise SourceError(
                f"{key}: LoveDA's test labels are not public. Measure on val, or send maps of the test "
                "images to its server (geodino.data.labelled.loveda.write_submission)."
            )
        file: ClassFile = class_file(str(self._path(key, "masks_png")))
        where = window or Window(0, 0, file.grid.height, file.grid.width)
        return read_classes(self._pool, file, self._table, where)

    def traits(self, key: str) -> Mapping[str, str]:
        """Return whether it shows town or country."""
        return {"region": key.split("/")[1]}

    def outline(self, key: str) -> None:
        """Return None: images have no place on the Earth."""
        return


def write_submission(folder: Path | str, key: str, classes: UInt8[np.ndarray, "h w"]) -> Path:
    """Write the map of a test image as the server wants it: ``N.png`` with 0 to 6.

    Args:
        folder: made where it is missing.
        key: of the image, ``test/Urban/4191``.
        classes: number of the class of each pixel, for every pixel.

    Raises:
        SourceError: a pixel has none of the seven classes, or the map has another size.
    """
    from PIL import Image as Picture

    if classes.shape != (_SIDE, _SIDE) or classes.max() >= len(CLASSES):
        raise SourceError(
            f"{key}: the server wants {_SIDE} x {_SIDE} pixels of 0 to {len(CLASSES) - 1}; found "
            f"{classes.shape[0]} x {classes.shape[1]} and values up to {classes.max()}."
        )
    path = Path(folder) / f"{key.rpartition('/')[2]}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        Picture.fromarray(classes).save(temporary, format="PNG")
    return path
