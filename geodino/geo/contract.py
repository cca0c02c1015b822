"""The input contract: what a model was trained on, and what it therefore demands of a file."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from geodino.config import Config
from geodino.errors import ContractError
from geodino.geo.bands import Band


class InputContract(Config):
    """Bands, stored type, statistics and validity rule of a model's input.

    Per-band values follow ``bands``. Statistics are of stored values (before scale and offset),
    over valid pixels.
    """

    bands: tuple[Band, ...]
    """The channels, in the order the model reads them."""

    dtype: str
    """Stored type of the pixels, as numpy names it: ``uint8``, ``uint16``, ``float32``."""

    mean: tuple[float, ...]
    """Mean per band."""

    std: tuple[float, ...]
    """Standard deviation per band (of the population); 1 for a constant band."""

    low: tuple[float, ...]
    """1st percentile per band; 0 for uint8."""

    high: tuple[float, ...]
    """99th percentile per band; 255 for uint8."""

    valid: Literal["all", "any"] = "all"
    """Whether a pixel needs all of its bands, or any, to be valid."""

    nodata: str = ""
    """What made a pixel invalid, in words."""

    gsd_m: tuple[float, float] | None = None
    """Smallest and largest ground sampling distance seen, metres; None for images without place."""

    statistics: dict[str, Any] = Field(default_factory=dict)
    """What the statistics were computed on: tiles, pixels, valid share, method, seed."""

    @model_validator(mode="after")
    def _one_value_per_band(self) -> "InputContract":
        for name in ("mean", "std", "low", "high"):
            if len(getattr(self, name)) != len(self.bands):
                raise ValueError(
                    f"{name} has {len(getattr(self, name))} values for {len(self.bands)} bands"
                )
        return self

    @property
    def band_names(self) -> tuple[str, ...]:
        """Names of the bands, in order."""
        return tuple(band.name for band in self.bands)

    def to_json(self) -> str:
        """Return the contract as indented JSON."""
        return self.model_dump_json(indent=1)

    @classmethod
    def from_json(cls, text: str, *, source: str | Path = "contract.json") -> "InputContract":
        """Read a contract back.

        Raises:
            ContractError: naming ``source``, if the text is not a contract.
        """
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the text"
            raise ContractError(
                f"{source} is not an input contract ({where}: {first['msg']}). "
                "Export the model again, or restore the file."
            ) from error

    def check_bands(self, *, count: int, dtype: str, source: str | Path) -> None:
        """Refuse a file whose bands or type are not those of the contract.

        Raises:
            ContractError: what the file has, what the model wants, what to do.
        """
        if count != len(self.bands):
            raise ContractError(
                f"{source} offers {count} band(s), but the model reads {len(self.bands)}: "
                f"{', '.join(self.band_names)}. Choose that many, in that order, by band names "
                "or numbers."
            )
        if dtype != self.dtype:
            raise ContractError(
                f"{source} stores {dtype}, but the model was trained on {self.dtype} values. "
                "Convert the file with the scaling of the training data, or train on such files."
            )
