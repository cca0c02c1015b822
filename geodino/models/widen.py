"""A backbone for other bands than its weights were made for."""

from geodino.geo.contract import InputContract
from geodino.models.adapt import Adaptation
from geodino.models.backbone import Backbone
from geodino.models.build import assemble, materialise
from geodino.models.sizes import ModelConfig


def widened(
    backbone: Backbone,
    contract: InputContract,
    how: Adaptation | None,
    *,
    config: ModelConfig | None = None,
) -> Backbone:
    """Return a copy whose first layer reads the bands of ``contract``.

    Args:
        backbone: as its weights were made.
        contract: the new bands with their statistics.
        how: where each filter of the new first layer comes from; None keeps the layer, and the bands
            have other statistics alone.
        config: of the same architecture, with other settings of training; None keeps them.
    """
    new = assemble(config or backbone.config, mean=contract.mean, std=contract.std)
    materialise(new)
    state = dict(backbone.state_dict())
    if how is not None:
        stem = "trunk.patch_embed.proj.weight" if backbone.depth else "trunk.stem.0.weight"
        state[stem] = how.apply(state[stem])
    new.load_state_dict(state)
    return new.eval()
