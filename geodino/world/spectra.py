"""What things reflect, in sunlight and in radar, and how that follows the seasons."""

import numpy as np
from jaxtyping import Float32, Float64

from geodino.world.calendar import Keys, seasonal

OPTICAL = 12
"""Columns of ``REFLECTANCE`` that are bands of Sentinel-2, in its order; then radar's vv and vh."""

CLOUD: Float32[np.ndarray, " 14"] = np.array(
    [.74, .75, .74, .73, .73, .73, .72, .72, .72, .60, .48, .38, 0, 0], dtype=np.float32
)  # fmt: skip
"""Reflectance of a thick cloud per column; radar looks through."""

_TABLE: dict[str, tuple[float, ...]] = {
    # B01, B02, B03, B04, B05, B06, B07, B08, B8A, B09, B11, B12, vv, vh
    "grass": (.028, .034, .084, .052, .110, .250, .310, .330, .350, .350, .220, .120, .060, .012),
    "dormant grass": (.040, .050, .085, .080, .130, .200, .230, .245, .260, .260, .250, .160,
                      .050, .009),
    "mown grass": (.042, .052, .105, .090, .145, .250, .290, .310, .330, .330, .270, .170,
                   .050, .008),
    "green crop": (.020, .024, .082, .038, .090, .330, .420, .450, .470, .460, .200, .090,
                   .070, .016),
    "maize": (.022, .027, .075, .042, .095, .290, .360, .385, .400, .400, .210, .100, .100, .027),
    "rape in flower": (.035, .045, .155, .140, .190, .340, .400, .430, .450, .440, .220, .120,
                       .130, .035),
    "ripe crop": (.060, .080, .125, .165, .200, .230, .250, .270, .290, .300, .350, .250,
                  .050, .010),
    "stubble": (.080, .100, .140, .175, .205, .230, .250, .270, .290, .300, .370, .290,
                .060, .009),
    "brown soil": (.050, .065, .090, .120, .145, .160, .175, .190, .205, .210, .280, .240,
                   .070, .008),
    "light soil": (.085, .110, .150, .190, .215, .235, .250, .265, .280, .290, .360, .310,
                   .085, .009),
    "slash": (.045, .058, .085, .100, .130, .165, .185, .200, .220, .220, .280, .190, .090, .016),
    "broadleaf": (.014, .019, .050, .027, .070, .220, .290, .310, .330, .330, .160, .070,
                  .130, .034),
    "autumn leaves": (.025, .030, .072, .088, .140, .210, .240, .260, .280, .280, .210, .110,
                      .125, .031),
    "bare branches": (.030, .038, .055, .062, .085, .125, .145, .160, .175, .180, .190, .120,
                      .110, .026),
    "conifer": (.011, .016, .036, .019, .045, .120, .150, .165, .175, .175, .085, .040,
                .120, .030),
    "asphalt": (.085, .095, .105, .110, .115, .120, .125, .130, .135, .140, .160, .150,
                .025, .004),
    "gravel": (.110, .140, .180, .215, .235, .250, .260, .270, .280, .280, .330, .300,
               .050, .006),
    "red roof": (.055, .065, .085, .165, .200, .225, .240, .250, .260, .265, .300, .280,
                 .600, .060),
    "grey roof": (.110, .120, .130, .135, .140, .145, .150, .150, .155, .155, .170, .160,
                  .700, .070),
    "dark roof": (.050, .055, .062, .066, .070, .073, .076, .080, .082, .084, .100, .100,
                  .700, .070),
    "bright roof": (.210, .240, .255, .262, .270, .274, .277, .277, .277, .274, .262, .240,
                    .900, .080),
    "clear water": (.030, .032, .030, .018, .014, .010, .009, .008, .007, .006, .004, .003,
                    .008, .0012),
    "turbid water": (.050, .060, .075, .055, .045, .030, .028, .025, .022, .020, .008, .006,
                     .010, .0013),
}  # fmt: skip

MATERIALS = tuple(_TABLE)
"""Names of the rows of ``REFLECTANCE``."""

REFLECTANCE: Float64[np.ndarray, "m 14"] = np.array(list(_TABLE.values()))
"""Surface reflectance per material and Sentinel-2 band, and linear gamma nought in vv and vh:
round values in the range of spectral libraries, made for a plausible picture, not for inversion."""

_LEAF: Keys = ((105, 0.0), (128, 1.0), (275, 1.0), (318, 0.0))
_AUTUMN: Keys = ((262, 0.0), (292, 1.0), (318, 1.0), (325, 0.0))
_DORMANT: Keys = ((60, 1.0), (110, 0.0), (185, 0.15), (225, 0.35), (285, 0.2), (340, 0.85))


def material(name: str) -> int:
    """Return the row of a material."""
    return MATERIALS.index(name)


def leafiness(day: int) -> float:
    """Share of the leaves that broadleaved trees carry on a day of the year."""
    return seasonal(_LEAF, day)


def reflectance_on(day: int) -> Float64[np.ndarray, "m 14"]:
    """Return ``REFLECTANCE`` as of a day of the year: meadows fade, leaves turn and fall."""
    table = REFLECTANCE.copy()
    fade = seasonal(_DORMANT, day)
    table[material("grass")] = _blend("grass", "dormant grass", fade)
    leaf, autumn = seasonal(_LEAF, day), seasonal(_AUTUMN, day)
    green = _blend("broadleaf", "autumn leaves", autumn)
    bare = REFLECTANCE[material("bare branches")]
    table[material("broadleaf")] = bare + (green - bare) * leaf
    return table


def _blend(first: str, second: str, share: float) -> Float64[np.ndarray, " 14"]:
    a, b = REFLECTANCE[material(first)], REFLECTANCE[material(second)]
    return np.asarray(a + (b - a) * share)
