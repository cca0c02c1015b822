"""Every dense head there is, and how one is put on a backbone."""

from typing import Annotated

from pydantic import Field

from geodino.errors import RecipeError
from geodino.models.backbone import Backbone
from geodino.models.decoders.dpt import DptConfig, DptHead
from geodino.models.decoders.linear import LinearHead, LinearHeadConfig
from geodino.models.decoders.taps import Tap, taps_of
from geodino.models.decoders.upernet import UperNetConfig, UperNetHead
from geodino.models.vit import VitBackbone

DenseHeadConfig = Annotated[
    DptConfig | LinearHeadConfig | UperNetConfig, Field(discriminator="kind")
]
"""Every dense head. Adding one is its own file beside this one and its name on this line."""

DenseHead = DptHead | LinearHead | UperNetHead


def build_head(
    backbone: Backbone, config: DptConfig | LinearHeadConfig | UperNetConfig, *, outputs: int
) -> tuple[DenseHead, tuple[Tap, ...]]:
    """Build an unset head for a backbone; return it with the taps it reads, shallow to deep.

    Raises:
        RecipeError: taps or a readout that the backbone does not have, or strides that the head
            cannot use.
    """
    taps = taps_of(backbone, config.taps)
    if isinstance(config, LinearHeadConfig):
        return LinearHead(taps, config, outputs=outputs), taps
    if isinstance(config, UperNetConfig):
        return UperNetHead(taps, config, outputs=outputs), taps
    has_cls = isinstance(backbone, VitBackbone)
    if config.readout == "auto":
        config = config.model_copy(update={"readout": "project" if has_cls else "ignore"})
    elif config.readout != "ignore" and not has_cls:
        raise RecipeError(
            f"readout {config.readout!r} needs a CLS token, which {backbone.config.name} does not "
            "have: set `head.readout: ignore`, or leave it to `auto`."
        )
    return DptHead(taps, config, outputs=outputs), taps
