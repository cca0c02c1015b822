"""Crops with objects, drawn around objects or anywhere.

What is drawn depends on the seed and the number of the sample alone, so that a resumed run goes
on with the same crops.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from pydantic import Field

from geodino import seeds
from geodino.data.labelled.boxes import DividedGround, in_window
from geodino.data.labelled.sets import Boxes, PartName
from geodino.data.parallel import in_order
from geodino.errors import SourceError
from geodino.geo.regrid import resample_classes
from geodino.geo.windows import Window
from geodino.models.detection.matching import Objects
from geodino.tasks.augment import Augment, Move
from geodino.tasks.detection.batch import BoxBatch
from geodino.tasks.feed import DrawnFeed
from geodino.tasks.parts import TrainPartsConfig
from geodino.tasks.source import LabelledSource


class BoxSamplingConfig(TrainPartsConfig):
    """Which crops are learnt from. Validation and testing see whole images instead."""

    crop: int = Field(default=512, ge=32)
    """Side, pixels. Smaller images are filled up with invalid pixels."""

    around: float = Field(default=0.8, ge=0, le=1)
    """Share of crops that are drawn around an object; the others lie anywhere."""

    augment: Augment = "flips"
    """Flips, flips and quarter turns, or none of both."""


@dataclass(frozen=True, kw_only=True)
class BoxSource(LabelledSource):
    """Images with boxes."""

    def label(self, key: str, window: Window | None = None) -> Boxes:
        """Read the objects of an image or of a window of it.

        Raises:
            SourceError: the set has no boxes, or a file is damaged.
        """
        found = self.set.label(key, window)
        if not isinstance(found, Boxes):
            raise SourceError(f"{self.set.facts.name} holds no boxes: {key}.")
        return found

    def ground(self, key: str, window: Window) -> Bool[np.ndarray, "h w"]:
        """Return which pixels of a window lie on ground of the key's part."""
        if isinstance(self.set, DividedGround):
            return self.set.ground(key, window)
        return np.ones((window.height, window.width), dtype=np.bool_)

    def on_ground(self, key: str, xyxy: Float[np.ndarray, "n 4"]) -> Bool[np.ndarray, " n"]:
        """Return the boxes whose centre lies on ground of the key's part."""
        if isinstance(self.set, DividedGround):
            return self.set.on_ground(key, xyxy)
        return np.ones(len(xyxy), dtype=np.bool_)

    def on_valid(self, key: str, xyxy: Float[np.ndarray, "n 4"]) -> Bool[np.ndarray, " n"]:
        """Return the boxes whose centre lies on a pixel that may be used."""
        height, width = self.size(key)
        centres = np.floor((xyxy[:, :2] + xyxy[:, 2:]) / 2).astype(int)
        columns, rows = centres.T.clip(0, [[width - 1], [height - 1]]).tolist()
        pixels = (Window(row, column, 1, 1) for row, column in zip(rows, columns, strict=True))
        return np.array([self.read(key, one)[1].item() for one in pixels], dtype=np.bool_)

    def steps(self, key: str) -> Float[np.ndarray, " 4"]:
        """Return pixels of an image in one of the model's grid: for left, top, right, bottom."""
        regrid = self.regrid(key)
        if regrid is None:
            return np.ones(4)
        rows, columns = regrid.down
        return np.array([columns.step, rows.step] * 2)

    def seen_label(self, key: str, window: Window | None = None) -> Boxes:
        """Return the objects of an image, or of a window, on the model's grid; raises as ``label``."""
        if self.regrid(key) is None:
            return self.label(key, window)
        found, grid = self.label(key), self.grid(key)
        made = replace(found, xyxy=(found.xyxy / self.steps(key)).astype(np.float32))
        return in_window(made, window or Window(0, 0, grid.height, grid.width))

    def seen_ground(self, key: str, window: Window) -> Bool[np.ndarray, "h w"]:
        """Return which pixels of a window of the model's grid lie on ground of the key's part."""
        regrid = self.regrid(key)
        if regrid is None:
            return self.ground(key, window)
        (rows, columns), under = regrid.down, self.under(key, window)
        found = resample_classes(
            self.ground(key, under).astype(np.uint8), read=under, rows=rows, columns=columns,
            window=window, how="nearest", ignored=0,
        )  # fmt: skip
        return found.astype(np.bool_)


@dataclass(frozen=True, kw_only=True, slots=True)
class BoxPlaces:
    """What there is to learn from."""

    keys: tuple[str, ...]
    """Images."""

    sizes: tuple[tuple[int, int], ...]
    """Height and width of each image, pixels of the model's grid, as all that follows."""

    image: Int64[np.ndarray, " n"]
    """Number of the image of each object that is learnt from."""

    centre: Float[np.ndarray, "n 2"]
    """Row and column of each, pixels."""

    side: Float[np.ndarray, "n 2"]
    """Height and width of each, pixels."""

    classes: Int64[np.ndarray, " n"]

    @property
    def area(self) -> Float[np.ndarray, " i"]:
        """Pixels of each image."""
        return np.array([height * width for height, width in self.sizes], dtype=np.float64)


def find_places(
    source: BoxSource, *, threads: int, parts: tuple[PartName, ...] = ("train",)
) -> BoxPlaces:
    """Read the labels of all images to learn from.

    Raises:
        SourceError: there is no image, or no object.
    """
    keys = tuple(key for part in parts for key in source.set.parts.get(part, ()))
    if not keys:
        raise SourceError("There is no image to learn from: check the split.")
    grids = in_order(source.grid, keys, threads=threads)
    sizes = tuple((grid.height, grid.width) for grid in grids)
    labels = list(in_order(source.seen_label, keys, threads=threads))
    known = [~one.difficult for one in labels]
    xyxy = np.concatenate([one.xyxy[k] for one, k in zip(labels, known, strict=True)])
    if not len(xyxy):
        raise SourceError(
            "No image for training holds an object: check --labels, the split, and the classes."
        )
    xyxy = xyxy.astype(np.float64)
    return BoxPlaces(
        keys=keys,
        sizes=sizes,
        image=np.repeat(np.arange(len(keys)), [int(k.sum()) for k in known]),
        centre=(xyxy[:, [1, 0]] + xyxy[:, [3, 2]]) / 2,
        side=xyxy[:, [3, 2]] - xyxy[:, [1, 0]],
        classes=np.concatenate([one.classes[k] for one, k in zip(labels, known, strict=True)]),
    )


@dataclass(frozen=True, kw_only=True, slots=True)
class _Crop:
    pixels: Shaped[np.ndarray, "c h w"]
    valid: Bool[np.ndarray, "h w"]
    ground: Bool[np.ndarray, "h w"]
    objects: Objects


class BoxFeed(DrawnFeed[_Crop, BoxBatch]):
    """Batches of crops from any step on; what is in a batch depends on seed and step alone.

    Args:
        source: images and labels.
        places: where objects are.
        config: how crops are drawn.
        seed: of the run.
        batch: crops of a step.
        threads: that read.

    Attributes:
        waited_s: time spent waiting for crops.
    """

    def __init__(
        self,
        source: BoxSource,
        places: BoxPlaces,
        config: BoxSamplingConfig,
        *,
        seed: int,
        batch: int,
        threads: int,
    ) -> None:
        self._source = source
        self._places = places
        self._config = config
        super().__init__(seed=seed, batch=batch, threads=threads)
        self._share = places.area / places.area.sum()

    def _batched(self, crops: list[_Crop], step: int) -> BoxBatch:
        return BoxBatch(
            step=step,
            pixels=torch.from_numpy(np.stack([crop.pixels for crop in crops])),
            valid=torch.from_numpy(np.stack([crop.valid for crop in crops])),
            ground=torch.from_numpy(np.stack([crop.ground for crop in crops])),
            objects=tuple(crop.objects for crop in crops),
        )

    def _crop(self, sample: int) -> _Crop:
        generator = seeds.rng(self._seed, "crop", sample)
        image, window = self._drawn(generator)
        key, side = self._places.keys[image], self._config.crop
        pixels, valid = self._source.seen(key).read(window)
        label = self._source.seen_label(key, window)
        move = Move.drawn(self._config.augment, generator)
        lack = [(0, side - window.height), (0, side - window.width)]
        return _Crop(
            pixels=move.pixels(np.pad(pixels, [(0, 0), *lack])),
            valid=move.pixels(np.pad(valid, lack)),
            ground=move.pixels(np.pad(self._source.seen_ground(key, window), lack)),
            objects=Objects(
                boxes=torch.from_numpy(move.boxes(label.xyxy, side)),
                classes=torch.from_numpy(label.classes),
                difficult=torch.from_numpy(label.difficult),
            ),
        )

    def _drawn(self, generator: np.random.Generator) -> tuple[int, Window]:
        places, crop = self._places, self._config.crop
        if generator.random() < self._config.around:
            one = int(generator.integers(len(places.image)))
            image = int(places.image[one])
            # The centre of the object falls anywhere in the crop.
            corner = places.centre[one] - generator.random(2) * crop
        else:
            image = int(generator.choice(len(places.keys), p=self._share))
            room = np.maximum(np.array(places.sizes[image]) - crop, 0)
            corner = generator.integers(0, room + 1).astype(np.float64)
        sizes = places.sizes[image]
        extents = [min(crop, length) for length in sizes]
        top, left = (
            int(np.clip(np.floor(at), 0, length - extent))
            for at, length, extent in zip(corner.tolist(), sizes, extents, strict=True)
        )
        return image, Window(top, left, extents[0], extents[1])
