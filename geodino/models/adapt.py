"""Weights made for some bands, given to a model of others: how the first layer is changed.

A patch embedding (or a ConvNeXt's stem) has one filter per band. A filter that is kept or averaged
is multiplied by ``P / N`` for ``P`` bands of the parent and ``N`` of the tiles: where all bands show
the same picture the first layer then answers as before.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from geodino.config import Config
from geodino.errors import BandError
from geodino.geo.bands import Band

BandRule = Literal["match", "mean", "order"]


class InitConfig(Config):
    """Weights a run begins with, instead of random ones."""

    model: str
    """Run or model folder, ``timm:NAME.TAG``, ``hub:OWNER/NAME``, or a weights file."""

    bands: BandRule = "match"
    """How the first layer meets other bands. ``match``: bands with the same common name keep their
    filters, others get the mean of all; ``mean``: every band gets the mean; both times P / N for P
    bands of the model and N of the tiles. ``order``: the same bands in the same order, whatever
    they are called. Where the bands are the same the filters stay as they are."""

    statistics: Literal["auto", "parent", "measured"] = "auto"
    """Mean and standard deviation of the input: the parent's, or those measured on the tiles.
    auto: the parent's where bands and stored type agree."""

    sha256: str | None = None
    """Hash of the weights; written when the run begins."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Adaptation:
    """Where each filter of the new first layer comes from."""

    sources: tuple[int | None, ...]
    """Per band of the tiles, the parent's band whose filter it keeps; None gets the mean of all."""

    parents: int
    """Bands of the parent."""

    words: str
    """What is done, for people."""

    @property
    def is_exact(self) -> bool:
        """Whether every filter of the parent is kept, once each and unscaled."""
        return sorted(s for s in self.sources if s is not None) == list(range(self.parents)) and (
            len(self.sources) == self.parents
        )

    def apply(self, filters: Float[Tensor, "d p h w"]) -> Float[Tensor, "d n h w"]:
        """Return the first layer's weight for the bands of the tiles."""
        mean = filters.mean(dim=1)
        new = [mean if s is None else filters[:, s] for s in self.sources]
        return torch.stack(new, dim=1) * (self.parents / len(self.sources))


def adaptation(parent: Sequence[Band], bands: Sequence[Band], *, rule: BandRule) -> Adaptation:
    """Decide which filter each band of the tiles gets.

    Raises:
        BandError: ``order`` with another number of bands, or ``match`` where no band matches.
    """
    count = len(parent)
    names = ", ".join(band.name for band in bands)
    same: tuple[int | None, ...] = tuple(range(count))
    if len(bands) == count and all(map(Band.is_like, parent, bands)):
        return Adaptation(sources=same, parents=count, words="the same bands: unchanged")
    if rule == "order":
        if len(bands) != count:
            raise BandError(
                f"init.bands: order needs as many bands as the model has ({count}), but the tiles "
                f"have {len(bands)}: {names}. Use match or mean."
            )
        return Adaptation(sources=same, parents=count, words="taken in order: unchanged")
    if rule == "mean":
        sources: tuple[int | None, ...] = (None,) * len(bands)
        words = f"every band gets the mean filter of {count}"
    else:
        sources = tuple(_place(parent, band) for band in bands)
        kept = [band.name for band, s in zip(bands, sources, strict=True) if s is not None]
        if not kept:
            raise BandError(
                f"init.bands: none of the tiles' bands ({names}) is one of the model's "
                f"({', '.join(band.name for band in parent)}) by name. `--set init.bands=order` "
                "takes them as the same in the same order, `--set init.bands=mean` gives each the "
                "mean filter; or name the bands in a dataset.yaml."
            )
        others = [band.name for band, s in zip(bands, sources, strict=True) if s is None]
        words = f"{', '.join(kept)} keep their filters"
        words += f"; {', '.join(others)} get the mean of {count}" if others else ""
    found = Adaptation(sources=sources, parents=count, words=words)
    if len(bands) == count:
        return found
    scaled = f"{words}; all times {count}/{len(bands)}"
    return Adaptation(sources=sources, parents=count, words=scaled)


def _place(parent: Sequence[Band], band: Band) -> int | None:
    places = [i for i, other in enumerate(parent) if other.is_like(band)]
    return places[0] if len(places) == 1 else None
