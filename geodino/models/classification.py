"""A class, or several, for a whole image: a backbone, one vector of it, and a linear head."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Num
from pydantic import Field
from torch import Tensor, nn

from geodino.config import Config
from geodino.models.backbone import Backbone
from geodino.models.headed import HeadedModel
from geodino.models.pooling import FeatureName, fit_to_patches, pooled

ClassKind = Literal["classification", "multilabel"]
"""One class an image, or any number of them."""


class ClassificationConfig(Config):
    """What stands on the backbone to tell whole images apart."""

    features: FeatureName = "concat"
    """What stands for an image: ``cls``, the class token; ``mean``, the mean of its patch tokens; or
    ``concat``, both side by side, as DINO's linear probe has it."""

    dropout: float = Field(default=0.0, ge=0, lt=1)
    """Share of the features that are left out, others each step."""


class LinearHead(nn.Module):
    """Features to the logits of classes.

    Args:
        features: how many.
        classes: how many.
        dropout: share of the features left out in training.
    """

    def __init__(self, features: int, classes: int, *, dropout: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.linear = nn.Linear(features, classes)

    def init_weights(self, generator: torch.Generator) -> None:
        """Draw the weights with deviation 0.01, as DINO's probe does; biases are 0."""
        nn.init.normal_(self.linear.weight, std=0.01, generator=generator)
        nn.init.zeros_(self.linear.bias)

    def forward(self, features: Float[Tensor, "b e"]) -> Float[Tensor, "b k"]:
        """Return the logit of each class."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits


class ClassificationModel(HeadedModel):
    """Stored pixel values in, the logits of classes out.

    Images are resized bilinearly: to the square ``image_size``, or without one up to whole patches.

    Args:
        backbone: with its weights.
        config: the head; its weights are unset until ``init_head`` or a state dict sets them.
        classes: how many.
        kind: whether an image has one class or any number.
        image_size: side of what the backbone sees, pixels; None: the image's own.

    Attributes:
        backbone: of any family.
        head: gives one logit per class.
    """

    head: LinearHead

    def __init__(
        self,
        backbone: Backbone,
        config: ClassificationConfig,
        *,
        classes: int,
        kind: ClassKind,
        image_size: int | None,
    ) -> None:
        super().__init__(backbone)
        self.config = config
        self.classes = classes
        self.kind = kind
        self.image_size = image_size
        width = backbone.dim * (2 if config.features == "concat" else 1)
        self.head = LinearHead(width, classes, dropout=config.dropout)

    def init_head(self, generator: torch.Generator) -> None:
        """Draw the head's weights."""
        self.head.init_weights(generator)

    def features(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None = None
    ) -> Float[Tensor, "b e"]:
        """Return the vector that stands for each image."""
        if valid is None:
            valid = torch.ones_like(image[:, 0], dtype=torch.bool)
        image, valid = fit_to_patches(
            image.float(), valid, patch_size=self.backbone.patch_size, image_size=self.image_size
        )
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            return pooled(self.backbone.tokens(image, valid), valid, self.config.features)

    def forward(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None = None
    ) -> Float[Tensor, "b k"]:
        """Return the logits of each class.

        Args:
            image: stored values, as the backbone's contract says.
            valid: True where a pixel may be used; None uses all.

        Raises:
            ContractError: another number of bands than the backbone was built for.
        """
        logits: Tensor = self.head(self.features(image, valid))
        return logits

    def probabilities(
        self, image: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"] | None = None
    ) -> Float[Tensor, "b k"]:
        """Return the probability of each class, float32: of all together, or of each by itself."""
        logits: Tensor = self(image, valid).float()
        return logits.softmax(dim=1) if self.kind == "classification" else logits.sigmoid()


def build_classification(
    backbone: Backbone,
    config: ClassificationConfig,
    *,
    classes: int,
    kind: ClassKind,
    image_size: int | None,
    generator: torch.Generator,
) -> ClassificationModel:
    """Put a fresh head on a frozen backbone.

    Args:
        backbone: with its weights.
        config: the head.
        classes: how many.
        kind: whether an image has one class or any number.
        image_size: see :class:`ClassificationModel`.
        generator: the head's weights depend on its state alone.
    """
    model = ClassificationModel(backbone, config, classes=classes, kind=kind, image_size=image_size)
    model.init_head(generator)
    model.freeze()
    return model
