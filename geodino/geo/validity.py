"""Which pixels may be used: the arithmetic of the validity rule and the evidence behind it.

Masks are True where a pixel may be used. A band of a pixel is valid where GDAL's mask, the nodata
tag and the alpha band allow it (as far as the :class:`ReadRule` of the source believes them) and
where its value is a finite number. Tests of nodata are on stored values, before scale and offset.
"""

from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Shaped
from numpy.typing import NDArray

from geodino.config import Config

ALPHA_SHARE = 0.99
"""A band tagged alpha is a mask if at least this share of its values is 0 or its maximum."""

NODATA_SHARE = 0.5
"""An integer nodata tag is believed if at least this share of the pixels it touches have it in
all bands at once."""

Combine = Literal["all", "any"]


class ReadRule(Config):
    """How the files of one source are read; decided once, the same for every file."""

    alpha: Literal["mask", "band"] = "mask"
    """Whether a band tagged alpha is a mask, or data with a wrong tag."""

    nodata: Literal["tag", "ignore"] | float = "tag"
    """Believe each file's nodata tag, ignore it, or test for this stored value instead."""

    reasons: tuple[str, ...] = ()
    """One sentence for each decision, for the run card and the record of the run."""

    @property
    def text(self) -> str:
        """The rule in one line, as written into the input contract."""
        nodata = {"tag": "the nodata tag", "ignore": "no nodata value"}.get(
            str(self.nodata), f"nodata {self.nodata!r}"
        )
        alpha = "a band tagged alpha" if self.alpha == "mask" else "no alpha band"
        return f"GDAL's mask, {nodata}, {alpha}, finite values"


def combine(valid: Bool[np.ndarray, "c h w"], how: Combine) -> Bool[np.ndarray, "h w"]:
    """Join the bands' masks: a pixel is valid where all (or any) of its bands are."""
    if valid.strides[0] == 0:  # one mask shared by all bands: nothing to join
        first: Bool[np.ndarray, "h w"] = valid[0]
        return first
    reduce = np.logical_and if how == "all" else np.logical_or
    joined: Bool[np.ndarray, "h w"] = valid[0].copy()
    for band in valid[1:]:
        reduce(joined, band, out=joined)
    return joined


def is_all(mask: Bool[np.ndarray, "*s"]) -> bool:
    """Whether a mask is true everywhere; of one value that stands for all, this looks at one."""
    return bool(mask.all() if any(mask.strides) or not mask.size else mask.flat[0])


def differs(pixels: NDArray[Any], nodata: float | None) -> NDArray[np.bool_]:
    """Where stored values are not ``nodata``: everywhere if there is none their type can hold.

    For 32-bit floats ``nodata`` is rounded to 32 bits first, as a tag written in decimals needs.
    NaN is left to the finite test.
    """
    stored = None if nodata is None else _as_stored(nodata, pixels.dtype)
    if stored is None:
        return np.ones(pixels.shape, dtype=bool)
    return np.asarray(pixels != stored)


def can_hold(dtype: np.dtype[Any], value: float) -> bool:
    """Whether a nodata value can occur in pixels of this type (NaN is left to the finite test)."""
    return _as_stored(value, dtype) is not None


def _as_stored(value: float, dtype: np.dtype[Any]) -> Any:
    if np.isnan(value):
        return None
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            return dtype.type(value)
    limits = np.iinfo(dtype)
    if not (float(value).is_integer() and limits.min <= value <= limits.max):
        return None
    return dtype.type(int(value))


def finite(pixels: NDArray[Any]) -> NDArray[np.bool_] | None:
    """Where values are finite as 32-bit floats, which is what models read; None = everywhere.

    A 64-bit nodata such as -1.8e308 would become infinite on the way, hence is not finite here.
    """
    if pixels.dtype.kind != "f":
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        usable = np.isfinite(pixels.astype(np.float32, copy=False))
    return None if usable.all() else usable


def share_at_extremes(alpha: NDArray[Any]) -> float:
    """Share of values that are 0 or the largest value met: 1 for a mask, little for an image."""
    if alpha.size == 0:
        return 1.0
    return float(((alpha == 0) | (alpha == alpha.max())).mean())


def nodata_counts(
    pixels: Shaped[np.ndarray, "c h w"], nodata: tuple[float | None, ...]
) -> NDArray[np.int64]:
    """Count the pixels that hold their nodata value in (any band, all bands)."""
    valid = np.stack([differs(band, v) for band, v in zip(pixels, nodata, strict=True)])
    return np.array([(~valid.all(axis=0)).sum(), (~valid.any(axis=0)).sum()], dtype=np.int64)
