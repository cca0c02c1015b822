"""A class for every pixel: a backbone, a dense head, and a channel per class."""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor

from geodino.config import Config
from geodino.models.backbone import Backbone, Tokens
from geodino.models.canopy import pad
from geodino.models.decoders.dense import ClassHeadConfig, DenseHead, OwnLoss, build_head
from geodino.models.decoders.upernet import UperNetConfig
from geodino.models.headed import HeadedModel


class SegmentationConfig(Config):
    """What stands on the backbone to tell classes apart."""

    head: ClassHeadConfig = UperNetConfig()
    """The dense head, by its ``kind``: ``upernet``, ``dpt``, ``linear`` or ``mask2former``."""


class SegmentationModel(HeadedModel):
    """Stored pixel values in, the logits of classes out, at the same pixels.

    Images of any size are padded at the right and bottom with invalid pixels to the multiple the
    head needs, and the result is cropped back: pixel (i, j) of the result is pixel (i, j) of the
    image.

    Args:
        backbone: with its weights.
        config: the head; its weights are unset until ``init_head`` or a state dict sets them.
        classes: how many.

    Attributes:
        backbone: of any family.
        head: gives one channel per class.
        taps: where the head looks at the backbone, shallow to deep.
        multiple: sides are padded to a multiple of this, pixels.
    """

    head: DenseHead

    def __init__(self, backbone: Backbone, config: SegmentationConfig, *, classes: int) -> None:
        super().__init__(backbone)
        self.config = config
        self.classes = classes
        self.head, self.taps = build_head(backbone, config.head, outputs=classes)
        self.multiple = math.lcm(self.head.multiple, backbone.patch_size)

    def init_head(self, generator: torch.Generator) -> None:
        """Draw the head's weights; all classes begin about alike."""
        self.head.init_weights(generator, bias=torch.zeros(self.classes))

    def features(self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]) -> list[Tokens]:
        """Return the tokens the head reads, of an image of whole ``multiple``."""
        layers = [tap.layer for tap in self.taps]
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            return self.backbone.tap(image, layers, valid, norm=True)

    def forward(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None = None
    ) -> Float[Tensor, "b k h w"]:
        """Return the logits of each class.

        Args:
            image: stored values, as the backbone's contract says.
            valid: True where a pixel may be used; None uses all. Classes of other pixels are
                guesses from their surroundings.

        Raises:
            ContractError: another number of bands than the backbone was built for.
        """
        height, width = image.shape[-2:]
        tokens = self.features(*pad(image, valid, multiple=self.multiple))
        logits: Tensor = self.head(tokens)[..., :height, :width]
        return logits

    def probabilities(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None = None
    ) -> Float[Tensor, "b k h w"]:
        """Return the probability of each class, float32, without holding the logits beside it."""
        height, width = image.shape[-2:]
        tokens = self.features(*pad(image, valid, multiple=self.multiple))
        parts = [rows.float().softmax(dim=1) for rows in self.head.slabs(tokens)]
        return torch.cat(parts, dim=2)[..., :height, :width]

    def own_losses(
        self,
        image: Num[Tensor, "b c h w"],
        valid: Bool[Tensor, "b h w"],
        target: Int64[Tensor, "b h w"],
        counted: Bool[Tensor, "b h w"],
    ) -> dict[str, Float[Tensor, ""]] | None:
        """Return the losses the head brings; None where it is taught by its logits.

        Args:
            image: stored values.
            valid: True where a pixel may be used.
            target: number of the class; anything where not ``counted``.
            counted: which classes are learnt from.
        """
        if not isinstance(self.head, OwnLoss):
            return None
        pixels, usable = pad(image, valid, multiple=self.multiple)
        right, below = (pixels.shape[-i] - image.shape[-i] for i in (1, 2))
        return self.head.loss(
            self.features(pixels, usable),
            F.pad(target, (0, right, 0, below)),
            F.pad(counted, (0, right, 0, below)),
        )


def build_segmentation(
    backbone: Backbone,
    config: SegmentationConfig,
    *,
    classes: int,
    generator: torch.Generator,
    frozen: bool = True,
) -> SegmentationModel:
    """Put a fresh head on a backbone.

    Args:
        backbone: with its weights.
        config: the head.
        classes: how many.
        generator: the head's weights depend on its state alone.
        frozen: the backbone does not learn.

    Raises:
        RecipeError: the head does not fit the backbone.
    """
    model = SegmentationModel(backbone, config, classes=classes)
    model.init_head(generator)
    if frozen:
        model.freeze()
    return model
