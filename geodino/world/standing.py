"""What stands on a frame of ground: trees and buildings, drawn onto pixels, and their shadows."""

from dataclasses import dataclass
from datetime import date

import numpy as np
from jaxtyping import UInt8

from geodino.world.buildings import TALLEST_M as TALLEST_BUILDING_M
from geodino.world.buildings import Buildings, settle, streets
from geodino.world.calendar import Sun, day_of_year
from geodino.world.land import Districts, lay_out
from geodino.world.layers import Layers
from geodino.world.light import reach_m, shadows
from geodino.world.noise import Frame
from geodino.world.spectra import leafiness
from geodino.world.trees import SQUARE_M, TALLEST_M, Trees, crowns, plant, plot


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Trees and buildings in and around a frame."""

    layers: Layers
    """Their pixels."""

    shade: UInt8[np.ndarray, "h w"]
    """Share of the sun's light that does not reach the ground, 0 to 255."""

    buildings: Buildings
    """The buildings in and around the frame."""

    trees: Trees
    """The trees in and around the frame."""

    def cut(self, frame: Frame) -> tuple[slice, slice]:
        """Rows and columns of a frame that lies inside."""
        own = self.layers.frame
        top, left = frame.top - own.top, frame.left - own.left
        return slice(top, top + frame.height), slice(left, left + frame.width)


def margin(frame: Frame, sun: Sun) -> int:
    """Pixels around a frame from which crowns and shadows reach into it."""
    tallest = max(TALLEST_M, TALLEST_BUILDING_M)
    return int((reach_m(tallest, sun) + 2 * SQUARE_M) / frame.gsd_m) + 1


def stand(frame: Frame, seed: int, day: date, districts: Districts, sun: Sun) -> Standing:
    """Put trees and buildings on a frame; its rim lacks what stands beyond."""
    buildings = settle(frame, seed, day.year, districts)
    layers = Layers.empty(frame)
    for number in range(len(buildings)):
        layers.pave(buildings, number)
        layers.erect(buildings, number)
    squares = plot(frame, seed)
    land = lay_out(squares.stems, seed, day.year, districts)
    free = (land.road_m < -2) & (land.track_m < -1) & (land.water_m < -1) & (streets(land) < -1)
    free &= ~layers.taken(squares.stems.y_m, squares.stems.x_m)
    forest = plant(squares, land, free)
    leaf = leafiness(day_of_year(day))
    leafy = layers.grow(crowns(frame, forest), leaf=leaf)
    shade = shadows(layers.height_m, frame, sun) * np.uint8(255)
    if leaf < 1:
        # Light comes through bare twigs.
        solid = shadows(np.where(leafy, np.float32(0), layers.height_m), frame, sun)
        shade = np.where(solid, shade, shade // np.uint8(2) + np.uint8(127 * leaf) * (shade > 0))
    return Standing(
        layers=layers,
        shade=shade,
        buildings=buildings,
        trees=forest.listed(),
    )
