"""Every dense head there is, and how one is put on a backbone."""

from collections.abc import Sequence
from typing import Annotated, Protocol, runtime_checkable

from jaxtyping import Bool, Int64
from pydantic import Field
from torch import Tensor

from geodino.errors import RecipeError
from geodino.models.backbone import Backbone, Tokens
from geodino.models.decoders.dpt import DptConfig, DptHead
from geodino.models.decoders.linear import LinearHead, LinearHeadConfig
from geodino.models.decoders.mask2former import Mask2FormerConfig, Mask2FormerHead
from geodino.models.decoders.taps import Tap, taps_of
from geodino.models.decoders.upernet import UperNetConfig, UperNetHead
from geodino.models.vit import VitBackbone

DenseHeadConfig = Annotated[
    DptConfig | LinearHeadConfig | UperNetConfig, Field(discriminator="kind")
]
"""Dense heads for any outputs. Adding one is its own file beside this one and its name on this line."""

ClassHeadConfig = Annotated[
    DptConfig | LinearHeadConfig | UperNetConfig | Mask2FormerConfig, Field(discriminator="kind")
]
"""Dense heads whose outputs are classes."""

DenseHead = DptHead | LinearHead | UperNetHead | Mask2FormerHead


@runtime_checkable
class OwnLoss(Protocol):
    """A head that cannot be taught by its outputs at single pixels, and brings its loss."""

    loss_in_words: str
    """What it is taught with."""

    def loss(
        self,
        tokens: Sequence[Tokens],
        target: Int64[Tensor, "b h w"],
        valid: Bool[Tensor, "b h w"],
    ) -> dict[str, Tensor]:
        """Return the losses by name; ``total`` is what is minimised. Other pixels change no bit.

        Args:
            tokens: of images of whole ``multiple``.
            target: number of the class; anything where not ``valid``.
            valid: which pixels count.
        """


def build_head(
    backbone: Backbone,
    config: DptConfig | LinearHeadConfig | UperNetConfig | Mask2FormerConfig,
    *,
    outputs: int,
) -> tuple[DenseHead, tuple[Tap, ...]]:
    """Build an unset head for a backbone; return it with the taps it reads, shallow to deep.

    Raises:
        RecipeError: taps or a readout that the backbone does not have, or strides that the head
            cannot use.
        RunError: the head stands on a library that is not installed.
    """
    taps = taps_of(backbone, config.taps)
    if isinstance(config, LinearHeadConfig):
        return LinearHead(taps, config, outputs=outputs), taps
    if isinstance(config, UperNetConfig):
        return UperNetHead(taps, config, outputs=outputs), taps
    if isinstance(config, Mask2FormerConfig):
        return Mask2FormerHead(taps, config, outputs=outputs), taps
    has_cls = isinstance(backbone, VitBackbone)
    if config.readout == "auto":
        config = config.model_copy(update={"readout": "project" if has_cls else "ignore"})
    elif config.readout != "ignore" and not has_cls:
        raise RecipeError(
            f"readout {config.readout!r} needs a CLS token, which {backbone.config.name} does not "
            "have: set `head.readout: ignore`, or leave it to `auto`."
        )
    return DptHead(taps, config, outputs=outputs), taps
