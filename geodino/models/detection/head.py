"""What stands on the backbone to find objects: the layers, without what is done with them."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from geodino.config import Config
from geodino.models.backbone import Backbone
from geodino.models.decoders.layers import conv, draw, linear
from geodino.models.detection.pyramid import Pyramid

CELLS = 7
"""Cells along each side of the features of a box."""

_OUT_STD = 0.01


class DetectionConfig(Config):
    """What stands on the backbone to find objects."""

    channels: int = Field(default=256, ge=8)
    """Of every map of the pyramid."""

    hidden: int = Field(default=1024, ge=8)
    """Width of the two layers that tell what is in a box."""

    anchor_scale: float = Field(default=8.0, gt=0)
    """Side of the square boxes that are started from, in cells of their map: 8 starts from 32, 64,
    ... 512 pixels, 4 from 16 to 256."""

    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    """Height over width of those boxes."""

    proposals: int = Field(default=1000, ge=1)
    """Boxes of an image that are looked at closely, and most of each map before suppression."""

    proposal_iou: float = Field(default=0.7, gt=0, lt=1)
    """Of proposals that overlap by more, the surest stays."""

    drawn_anchors: int = Field(default=256, ge=2)
    """Boxes of an image that the first stage learns from in a step; at most half are objects."""

    drawn_proposals: int = Field(default=512, ge=2)
    """Proposals of an image that the second stage learns from; at most a quarter are objects."""

    least_score: float = Field(default=0.05, ge=0, lt=1)
    """Boxes that are less sure are not said."""

    box_iou: float = Field(default=0.5, gt=0, lt=1)
    """Of boxes of one class that overlap by more, the surest stays."""

    most_boxes: int = Field(default=300, ge=1)
    """Most boxes of an image, or of a chip of one."""


class DetectionHead(nn.Module):
    """Everything of Faster R-CNN that stands on the backbone.

    Args:
        backbone: what it stands on.
        config: its widths.
        classes: how many, background not counted.
    """

    def __init__(self, backbone: Backbone, config: DetectionConfig, *, classes: int) -> None:
        super().__init__()
        ratios, width = len(config.anchor_ratios), config.channels
        self.pyramid = Pyramid(backbone, channels=width)
        self.look = conv(width, width, kernel=3)
        self.objectness = conv(width, ratios, kernel=1)
        self.shift = conv(width, 4 * ratios, kernel=1)
        self.first = linear(width * CELLS**2, config.hidden)
        self.second = linear(config.hidden, config.hidden)
        self.what = linear(config.hidden, classes + 1)
        self.where = linear(config.hidden, 4 * classes)

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all weights; at first everything is about as likely an object as not."""
        self.pyramid.init_weights(generator)
        for layer in (self.look, self.first, self.second):
            draw(layer, generator, gain=math.sqrt(2))
        for out in (self.objectness, self.shift, self.what, self.where):
            draw(out, generator, gain=_OUT_STD * math.sqrt(out.weight[0].numel()))

    def proposed(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Return the logits ``[b a]`` and the codes ``[b a 4]`` of the anchors of each map."""
        made = []
        for x in maps:
            seen = F.relu(self.look(x))
            logits, codes = self.objectness(seen), self.shift(seen)
            images, ratios, height, width = logits.shape
            logits = logits.permute(0, 2, 3, 1).reshape(images, -1)
            codes = codes.reshape(images, ratios, 4, height, width)
            made.append((logits, codes.permute(0, 3, 4, 1, 2).reshape(images, -1, 4)))
        return made

    def told(self, features: Float[Tensor, "n c s s"]) -> tuple[Tensor, Tensor]:
        """Return the logits of background and classes ``[n 1+k]``, and codes ``[n k 4]``."""
        x = F.relu(self.second(F.relu(self.first(features.flatten(1)))))
        return self.what(x), self.where(x).unflatten(1, (-1, 4))
