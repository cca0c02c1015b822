"""Whether images fit a model: what is refused, in the same words whatever the task."""

from collections.abc import Sequence

from geodino.errors import ContractError, SourceError
from geodino.geo.contract import InputContract, Offer
from geodino.runs.finetune.config import LabelledConfig, TiledConfig


def unplaced(names: Sequence[str], so: str, *, otherwise: str = "") -> SourceError:
    """Return what is said of images without a place on the Earth.

    Args:
        names: of all of them; the first is named.
        so: what follows from it.
        otherwise: what else may be done than declaring their place or leaving them out.
    """
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return SourceError(
        f"{names[0]}{more} has no place on the Earth (no CRS, or no transform), so {so}: declare its "
        f"CRS (gdal_edit.py -a_srs EPSG:... FILE), or leave {otherwise or 'it'} out."
    )


def check_offer(contract: InputContract, offer: Offer, config: LabelledConfig) -> None:
    """Refuse an image that is not what the backbone was trained on.

    Raises:
        ContractError: naming all that differs, and what a recipe may say about it.
    """
    try:
        contract.check(offer, accept=config.accept)
    except ContractError as error:
        seen = ", and gsd_m sets the resolution the model sees"
        raise ContractError(
            f"{error}\nIn a recipe, `accept` lists what is taken as it is, such as accept: [gsd]"
            f"{seen if isinstance(config, TiledConfig) else ''}."
        ) from error
