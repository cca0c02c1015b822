"""What a recipe of canopy heights may say about learning them."""

from typing import Literal

from pydantic import Field, model_validator

from geodino.config import Config
from geodino.metrics.height import HeightProtocol
from geodino.tasks.augment import Augment


class SamplingConfig(Config):
    """Which crops are learnt from. Validation and testing see whole areas instead."""

    crop: int = Field(default=416, ge=16)
    """Side of a crop, pixels of the model's grid; rounded up to what the head needs. CHMv2: 416."""

    low_m: float = Field(default=1.0, gt=0)
    """A window whose labels are below this, but for 5 % of them, counts as low."""

    low_share: float = Field(default=0.1, ge=0, lt=1)
    """Share of the crops that are drawn from low windows, as far as there are any. CHMv2: 0.1."""

    tall_m: Literal["auto"] | float = "auto"
    """A window of whose labels 5 % are above this counts as tall; ``auto`` makes a tenth of the
    windows tall. CHMv2: 25 and 35."""

    tall_share: float = Field(default=0.2, ge=0, lt=1)
    """Share of the crops that are drawn from tall windows. CHMv2: 0.1 and 0.2."""

    min_label_share: float = Field(default=0.05, ge=0, le=1)
    """A window needs labels for training on this share of its pixels (rasters), or one footprint."""

    augment: Augment = "none"
    """``none``; ``flips`` along both axes; or ``turns``, flips and quarter turns. Flips and turns
    make more of few labels, but erase where the sun stands, and with it what shadows tell of
    heights: their effect is written to the results either way."""

    @model_validator(mode="after")
    def _shares_leave_room(self) -> "SamplingConfig":
        if self.low_share + self.tall_share >= 1:
            raise ValueError("low_share and tall_share must sum to less than 1")
        return self


class CurriculumConfig(Config):
    """The losses, and when each counts: shares of the run, so that they scale with its length."""

    silog_until: float = Field(default=0.3, ge=0, le=1)
    """The scale-invariant loss of log heights gives way to Charbonnier's, in metres, over this
    share of the steps. CHMv2: 30,000 of 100,000."""

    gradient_weight: float = Field(default=0.075, ge=0)
    """Weight of the patch-gradient loss at last; rasters only."""

    gradient_from: float = Field(default=0.05, ge=0, le=1)
    """Share of the steps after which it begins to rise from 0."""

    gradient_until: float = Field(default=0.5, ge=0, le=1)
    """Share of the steps after which it has its full weight."""

    charbonnier_scale_m: float = Field(default=1.0, gt=0)
    """Where Charbonnier's loss turns from quadratic to linear, metres."""

    @model_validator(mode="after")
    def _gradient_rises(self) -> "CurriculumConfig":
        if self.gradient_from > self.gradient_until:
            raise ValueError("gradient_from must not be larger than gradient_until")
        return self


class MapsConfig(Config):
    """How maps are made of chips; part of the model, since a transformer's values depend on it."""

    chip: Literal["auto"] | int = "auto"
    """Side of a chip, pixels; ``auto`` is that of the crops."""

    overlap: Literal["auto"] | int = "auto"
    """Pixels that neighbouring chips share; ``auto`` is a quarter of a chip."""


class ApplicabilityConfig(Config):
    """What is kept of the training ground's features, to tell later how far a map is from them."""

    tokens: int = Field(default=2048, ge=0)
    """Patch tokens that are kept; 0 keeps none."""

    crops: int = Field(default=128, ge=1)
    """Crops they are drawn from, at most."""


class VegetationConfig(Config):
    """Where there is vegetation: a pixel of some classes of a raster, or in a polygon."""

    rasters: str | None = None
    """Source of rasters of classes. ``null``: that of the labels, if ``dataset`` says which of its
    files they are."""

    dataset: str | None = None
    """Descriptor of those rasters, as ``data.dataset``."""

    classes: tuple[int, ...] = (5,)
    """Their classes that count; 5 is high vegetation in classes of laser returns."""

    polygons: str | None = None
    """Vector file of polygons that count as well, such as forests. A relative path is looked for
    in the folder of the labels first."""

    @property
    def has_rasters(self) -> bool:
        """Whether rasters are named."""
        return self.rasters is not None or self.dataset is not None

    @model_validator(mode="after")
    def _names_something(self) -> "VegetationConfig":
        if not self.has_rasters and self.polygons is None:
            raise ValueError(
                "vegetation needs rasters, dataset or polygons; null scores all labelled ground"
            )
        return self


class CanopyProtocol(HeightProtocol):
    """What is fixed before heights are scored, and where they are."""

    below_m: float | None = Field(default=None, gt=0)
    """Labels from this height up are not scored (Open-Canopy: 60 m). ``null``: all are."""

    vegetation: VegetationConfig | None = None
    """Only vegetation is scored. ``null``: all labelled ground is."""
