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
        raise ContractError(f"{error}\nIn a recipe {_in_a_recipe(config)}.") from error


def _in_a_recipe(config: LabelledConfig) -> str:
    """Say which keys stand for the options that a contract names, and what has none."""
    keys = ["--accept is a list (--set accept=[gsd])"]
    if isinstance(config, TiledConfig):
        keys += ["--bands is data.bands (--set data.bands=[1,2,3])", "--gsd is gsd_m"]
    if "scale" in type(config).model_fields:
        return "; ".join([*keys, "--scale is scale (--set scale=1)"])
    return "; ".join([*keys, "another type has to be converted first (gdal_translate -ot)"])
