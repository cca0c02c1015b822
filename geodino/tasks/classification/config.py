"""What a recipe of classification may say about learning it."""

from pydantic import Field

from geodino.config import Config
from geodino.tasks.augment import Augment


class ImageSamplingConfig(Config):
    """Which images are learnt from, and how they are seen."""

    size: int | None = Field(default=None, ge=8)
    """Side that every image is resized to, pixels, bilinearly; rounded up to whole patches.
    ``null``: images of one size stay as they are, but for the next whole patches."""

    balance: float = Field(default=0.0, ge=0, le=1)
    """Share of the images that are drawn by class: first a class, each as likely, then an image of
    it. The others come in passes over all images."""

    augment: Augment = "turns"
    """``none``; ``flips`` along both axes; or ``turns``, flips and quarter turns."""


class ImageLossConfig(Config):
    """Cross-entropy; where an image may have several classes, the mean of that of each."""

    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    """Share of the truth that is spread evenly over all classes (over yes and no, where an image may
    have several)."""


class ImageFloorsConfig(Config):
    """What the results are compared with, beside the answer that needs no image and the bands."""

    probe: bool = True
    """DINO's linear probe on the frozen features MODEL gave before the run: what learning with
    flips, or learning the backbone, adds to it. It encodes all images once more."""
