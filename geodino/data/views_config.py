"""Which crops a sample gives and how they are distorted."""

from dataclasses import dataclass
from typing import Final, Literal

from pydantic import Field, model_validator

from geodino.config import Config
from geodino.data.resample import Interpolation

GLOBALS: Final = 2
"""Global crops per sample; the method knows no other number."""

BLUR_P: Final[dict[str, tuple[float, float, float]]] = {
    "paper": (1.0, 0.1, 0.5),
    "release": (0.0, 0.9, 0.5),
    "none": (0.0, 0.0, 0.0),
}
"""Probability of blur for the first global, the second global and the local crops."""

Range = tuple[float, float]
Share = Field(default=0.0, ge=0.0, le=1.0)


@dataclass(frozen=True, kw_only=True, slots=True)
class CropSizes:
    """Sides of the crops of one step, pixels; they may change from step to step."""

    globals: int
    """Of the two global crops."""

    locals: int
    """Of the local crops."""

    gram: int | None = None
    """Of the Gram teacher's crops: the same places as the global crops, without distortion; None
    makes none."""

    blur: float = 1.0
    """Factor on the blur, in pixels: crops that are made larger by it show the same picture."""

    def scaled(self, by: float) -> "CropSizes":
        """Return the sizes of crops of the same places whose sides are ``by`` times as long.

        Everything drawn stays as it is, the blur on the ground included.
        """
        return CropSizes(
            globals=round(self.globals * by),
            locals=round(self.locals * by),
            gram=self.gram,
            blur=self.blur * by,
        )


class ViewsConfig(Config):
    """The crops of a sample and their distortions; the defaults are DINOv3's (arXiv 2508.10104).

    Colour changes apply where the bands hold red, green and blue; they see values clipped to the
    contract's low and high (0 and 255, or the 1st and 99th percentile).
    """

    global_size: int = Field(default=256, ge=8)
    """Side of the two global crops, pixels."""

    local_size: int = Field(default=112, ge=8)
    """Side of the local crops, pixels."""

    local_count: int = Field(default=8, ge=0)
    """Local crops per sample."""

    global_scale: Range = (0.32, 1.0)
    """Smallest and largest area of a global crop, as a share of the chip."""

    local_scale: Range = (0.05, 0.32)
    """The same for the local crops."""

    aspect: Range = (3 / 4, 4 / 3)
    """Smallest and largest width over height of a crop before it is made square."""

    enlarge: bool = False
    """Allow crops larger than the chips they are cut from, in which pixels are only enlarged."""

    interpolation: Interpolation = "bicubic"
    """How crops are resized; always antialiased."""

    min_valid: float = Field(default=0.5, ge=0.0, le=1.0)
    """A crop with a smaller share of valid pixels is drawn again, up to ten times; then the best
    of them is taken."""

    flip_horizontal: float = Share
    """Probability of a left-right flip."""

    flip_vertical: float = Share
    """Probability of an up-down flip."""

    turns: bool = False
    """Turn each crop by 0, 90, 180 or 270 degrees. Turns and flips erase the direction of the
    sun, which is a cue for height."""

    colour_p: float = Field(default=0.8, ge=0.0, le=1.0)
    """Probability that brightness, contrast, saturation and hue change, in random order."""

    brightness: float = Field(default=0.4, ge=0.0, le=1.0)
    """Brightness is multiplied by a number within 1 +- this."""

    contrast: float = Field(default=0.4, ge=0.0, le=1.0)
    """Distance to the crop's mean grey is multiplied by a number within 1 +- this."""

    saturation: float = Field(default=0.2, ge=0.0, le=1.0)
    """Distance to the pixel's grey is multiplied by a number within 1 +- this."""

    hue: float = Field(default=0.1, ge=0.0, le=0.5)
    """Hue is turned by up to this share of the circle, either way."""

    grayscale_p: float = Field(default=0.2, ge=0.0, le=1.0)
    """Probability that red, green and blue all become grey."""

    solarise_p: float = Field(default=0.2, ge=0.0, le=1.0)
    """Probability that the upper half of the range is inverted; second global crop only."""

    blur: Literal["paper", "release", "none"] = "paper"
    """How often global 1, global 2 and the local crops are blurred: ``paper`` 1.0, 0.1, 0.5;
    ``release`` 0, 0.9, 0.5, with which Meta's released models were trained by an inverted
    argument; ``none`` never."""

    blur_kernel: int = Field(default=9, ge=3)
    """Width of the Gaussian's window, pixels, odd."""

    blur_sigma: Range = (0.1, 2.0)
    """Standard deviation of the Gaussian, pixels."""

    jitter_p: float = Field(default=0.8, ge=0.0, le=1.0)
    """Probability that ``gain`` and ``offset`` apply to a crop."""

    gain: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Distance to the band's mean is multiplied by a number within 1 +- this, per band. About the
    mean, because stored zero means nothing in decibels or with an offset."""

    offset: float = Field(default=0.0, ge=0.0)
    """A number within +- this is added per band, in standard deviations of the band."""

    jitter_bands: Literal["other", "all"] = "other"
    """Which bands ``gain`` and ``offset`` change: those that colour changes leave alone, or all."""

    @model_validator(mode="after")
    def _ranges_are_in_order(self) -> "ViewsConfig":
        for name in ("global_scale", "local_scale", "aspect", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0.0 < low <= high:
                raise ValueError(f"{name} must be two numbers above 0, the smaller first")
        if max(self.global_scale[1], self.local_scale[1]) > 1.0:
            raise ValueError("global_scale and local_scale are shares of the chip, 1 at most")
        if self.blur_kernel % 2 == 0:
            raise ValueError("blur_kernel must be odd")
        if self.blur != "none" and min(self.global_size, self.local_size) <= self.blur_kernel // 2:
            raise ValueError("blur_kernel must be smaller than twice the crop size")
        return self

    @property
    def sizes(self) -> CropSizes:
        """The sides of the crops where no step asks for others."""
        return CropSizes(globals=self.global_size, locals=self.local_size)

    @property
    def crops(self) -> int:
        """Crops per sample, global and local."""
        return GLOBALS + self.local_count

    @property
    def jitters_bands(self) -> bool:
        """Whether any band's gain or offset can change."""
        return self.jitter_p > 0 and (self.gain > 0 or self.offset > 0)

    @property
    def changes_colour(self) -> bool:
        """Whether anything is asked that needs red, green and blue."""
        strengths = (self.brightness, self.contrast, self.saturation, self.hue)
        jitters = self.colour_p > 0 and any(strengths)
        return jitters or self.grayscale_p > 0 or self.solarise_p > 0
