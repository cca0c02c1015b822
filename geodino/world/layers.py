"""The pixels of buildings and crowns, drawn one thing after the other."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, UInt8

from geodino.world.buildings import KINDS, Boxes, Buildings
from geodino.world.noise import Frame
from geodino.world.spectra import material
from geodino.world.trees import Crowns

Map = Float32[np.ndarray, "h w"]
Bytes = UInt8[np.ndarray, "h w"]

NOTHING = 255
"""Material of a pixel on which nothing stands."""

_FULL = 128
"""Half of a byte: what covers at least half of a pixel gives it its class and its height."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layers:
    """What stands on a frame, filled in place. Shares are 0 to 255, brightness is 128 for 1."""

    frame: Frame
    """The pixels."""

    height_m: Map
    """Height of the highest thing above the ground."""

    what: Bytes
    """Material seen from above, or ``NOTHING``."""

    share: Bytes
    """How much of the pixel it hides."""

    gain: Bytes
    """Its brightness."""

    paved: Bytes
    """Share of the ground under drives and car parks."""

    number: Int32[np.ndarray, "h w"]
    """Building a pixel belongs to, or -1."""

    @classmethod
    def empty(cls, frame: Frame) -> "Layers":
        """Start with bare ground."""
        return cls(
            frame=frame,
            height_m=np.zeros(frame.shape, dtype=np.float32),
            what=np.full(frame.shape, NOTHING, dtype=np.uint8),
            share=np.zeros(frame.shape, dtype=np.uint8),
            gain=np.full(frame.shape, 128, dtype=np.uint8),
            paved=np.zeros(frame.shape, dtype=np.uint8),
            number=np.full(frame.shape, -1, dtype=np.int32),
        )

    def pave(self, buildings: Buildings, number: int) -> None:
        """Draw the yard of a building."""
        drawn = _inside(self.frame, buildings.yards, number)
        if drawn is not None:
            part, inside_m, _, _ = drawn
            share = _share(inside_m, self.frame.gsd_m)
            np.maximum(self.paved[part], share, out=self.paved[part])

    def erect(self, buildings: Buildings, number: int) -> None:
        """Draw a building: a ridge along its longer side, or a flat roof with skylights."""
        drawn = _inside(self.frame, buildings.walls, number)
        if drawn is None:
            return
        part, inside_m, along, across = drawn
        share = _share(inside_m, self.frame.gsd_m)
        long, deep = buildings.walls.half_along[number], buildings.walls.half_deep[number]
        slope = np.abs(across) / deep if long > deep else np.abs(along) / long
        height = buildings.eaves_m[number] + buildings.ridge_m[number] * np.maximum(0, 1 - slope)
        gain = np.full(share.shape, buildings.gain[number] * 128, dtype=np.float32)
        if buildings.kind[number] == KINDS.index("hall"):
            strip = along - np.floor(along / 12) * 12
            gain += np.float32(24) * (np.abs(strip - 6) < 0.7) * (inside_m > 2)
        touched, full = share > 0, share >= _FULL
        self.what[part][touched] = buildings.roof[number]
        self.share[part][touched] = share[touched]
        self.gain[part][touched] = gain[touched].astype(np.uint8)
        self.height_m[part][full] = height[full]
        self.number[part][full] = number

    def taken(
        self, y_m: Float64[np.ndarray, "r c"], x_m: Float64[np.ndarray, "r c"]
    ) -> Bool[np.ndarray, "r c"]:
        """Whether places lie under a roof or in a yard; outside of the frame nothing does."""
        row = np.floor(y_m / self.frame.gsd_m).astype(np.int64) - self.frame.top
        column = np.floor(x_m / self.frame.gsd_m).astype(np.int64) - self.frame.left
        inside = (row >= 0) & (row < self.frame.height)
        inside &= (column >= 0) & (column < self.frame.width)
        row, column = np.where(inside, row, 0), np.where(inside, column, 0)
        return np.asarray(
            inside & ((self.what[row, column] != NOTHING) | (self.paved[row, column] >= _FULL))
        )

    def grow(self, crowns: Crowns, *, leaf: float) -> Bool[np.ndarray, "h w"]:
        """Draw crowns where no building stands; return where broadleaves do.

        Without leaves (``leaf`` is their share) a crown hides only a part of the ground.
        """
        wooded = (crowns.height_m > 0) & (self.number < 0)
        kind = np.where(
            crowns.conifer, np.uint8(material("conifer")), np.uint8(material("broadleaf"))
        )
        hides = np.where(crowns.conifer, np.uint8(255), np.uint8(255 * (0.5 + 0.5 * leaf)))
        for layer, value in ((self.what, kind), (self.share, hides), (self.gain, crowns.gain)):
            np.copyto(layer, value, where=wooded)
        np.copyto(self.height_m, crowns.height_m, where=wooded)
        return np.asarray(wooded & ~crowns.conifer)


def _inside(
    frame: Frame, boxes: Boxes, number: int
) -> tuple[tuple[slice, slice], Map, Map, Map] | None:
    """Find the pixels near a rectangle: where, distance inside its edge, both own coordinates."""
    along, deep = float(boxes.half_along[number]), float(boxes.half_deep[number])
    if along <= 0:
        return None
    cosine, sine = float(boxes.cosine[number]), float(boxes.sine[number])
    high = abs(along * sine) + abs(deep * cosine) + frame.gsd_m
    wide = abs(along * cosine) + abs(deep * sine) + frame.gsd_m
    y, x = float(boxes.y_m[number]), float(boxes.x_m[number])
    top, bottom = _span(y - high, y + high, frame.gsd_m, frame.top, frame.height)
    left, right = _span(x - wide, x + wide, frame.gsd_m, frame.left, frame.width)
    if top >= bottom or left >= right:
        return None
    here = frame.cut(top, left, bottom - top, right - left)
    dy = (here.y_m - y).astype(np.float32)[:, None]
    dx = (here.x_m - x).astype(np.float32)[None, :]
    own_along = dx * np.float32(cosine) + dy * np.float32(sine)
    own_across = dy * np.float32(cosine) - dx * np.float32(sine)
    inside = np.minimum(
        np.float32(along) - np.abs(own_along), np.float32(deep) - np.abs(own_across)
    )
    return (slice(top, bottom), slice(left, right)), inside, own_along, own_across


def _span(low_m: float, high_m: float, gsd_m: float, start: int, count: int) -> tuple[int, int]:
    first = int(np.floor(low_m / gsd_m)) - start
    last = int(np.floor(high_m / gsd_m)) - start + 1
    return min(max(first, 0), count), min(max(last, 0), count)


def _share(inside_m: Map, gsd_m: float) -> Bytes:
    """Share of a pixel inside a shape whose border is ``inside_m`` away, 0 to 255."""
    share = np.clip(np.float32(0.5) + inside_m / np.float32(gsd_m), 0, 1)
    return np.asarray(share * np.float32(255) + np.float32(0.5), dtype=np.uint8)
