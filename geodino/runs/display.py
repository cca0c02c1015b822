"""How pixels of a source are shown: which bands, and what is black and white."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Shaped

from geodino.geo.bands import rgb_indices
from geodino.geo.contract import InputContract
from geodino.report.content import Picture
from geodino.report.picture_table import Seen
from geodino.report.pictures import stretched

_DEVIATIONS = 2.5
"""Standard deviations from the mean to black and to white."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Display:
    """Bands and stretch, the same for every picture of a report."""

    bands: tuple[int, ...]
    """One or three, counted from 0."""
    low: Float[np.ndarray, " c"]
    """Stored value shown as black, per band shown."""
    high: Float[np.ndarray, " c"]
    mean: Float[np.ndarray, " c"]
    std: Float[np.ndarray, " c"]
    text: str
    """What the pictures show, as a sentence."""

    @classmethod
    def of(cls, contract: InputContract) -> "Display":
        """Take red, green and blue where they are known, else the first three bands, or the first."""
        first = (0, 1, 2) if len(contract.bands) >= 3 else (0,)
        bands = rgb_indices(contract.bands) or first
        names = ", ".join(contract.bands[i].name for i in bands)
        low, high, mean, std = (
            np.array([getattr(contract, name)[i] for i in bands], dtype=np.float64)
            for name in ("low", "high", "mean", "std")
        )
        return cls(
            bands=bands,
            low=np.maximum(low, mean - _DEVIATIONS * std),
            high=np.minimum(high, mean + _DEVIATIONS * std),
            mean=mean,
            std=std,
            text=f"Shown: {names}, from {_DEVIATIONS:g} standard deviations below the mean to as "
            "many above.",
        )

    def seen(self, pixels: Shaped[np.ndarray, "bands h w"], valid: Bool[np.ndarray, "h w"]) -> Seen:
        """Take what is shown from stored values of all bands of the source."""
        values = np.where(valid, pixels[list(self.bands)].astype(np.float64), np.nan)
        return Seen(values=values, low=self.low, high=self.high)

    def stored(
        self,
        pixels: Shaped[np.ndarray, "bands h w"],
        valid: Bool[np.ndarray, "h w"],
        *,
        alt: str,
        caption: str = "",
    ) -> Picture:
        """Show stored values of all bands of the source."""
        values = pixels[list(self.bands)].astype(np.float64)
        rgb = stretched(values, valid, low=self.low, high=self.high)
        return Picture(rgb=rgb, alt=alt, caption=caption)

    def normalised(
        self,
        crop: Float[np.ndarray, "bands h w"],
        valid: Bool[np.ndarray, "h w"],
        *,
        alt: str,
        caption: str = "",
    ) -> Picture:
        """Show what a model sees: ``(stored - mean) / std`` of all bands of the source."""
        shown = crop[list(self.bands)].astype(np.float64)
        values = shown * self.std[:, None, None] + self.mean[:, None, None]
        rgb = stretched(values, valid, low=self.low, high=self.high)
        return Picture(rgb=rgb, alt=alt, caption=caption)
