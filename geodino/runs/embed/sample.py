"""What is fitted on features before they are written: scales of int8, axes of the picture."""

from dataclasses import dataclass

import numpy as np

from geodino import seeds
from geodino.errors import SourceError
from geodino.infer.chips import drawn_chips
from geodino.infer.encode import encoded
from geodino.infer.quantise import Loss, Quantiser, measure
from geodino.runs.embed.job import Work

CHIPS = 256
"""Chips drawn at most, over all rasters."""

_TOKENS = 16_384
"""Patch tokens kept at most."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Features of some chips drawn from all rasters with the seed of the job."""

    tokens: np.ndarray
    """Patch tokens on valid pixels ``[n d]``, equally many of each chip at most."""

    vectors: np.ndarray
    """Pooled vectors ``[n d]``, one per chip."""

    is_complete: bool
    """Whether these are all features of the job."""

    @classmethod
    def draw(cls, work: Work) -> "Sample":
        """Encode a sample of chips.

        Raises:
            SourceError: none of the places drawn holds a valid pixel.
        """
        seed = work.job.seed
        chips = drawn_chips(
            [source.raster for source in work.sources],
            chip=work.chip,
            patch=work.encoder.patch,
            count=CHIPS,
            seed=seed,
        )
        results = list(encoded(chips, work.encoder))
        if not results:
            raise SourceError(
                f"No valid pixel in any of the places drawn from {work.sources[0].path} and the "
                "other rasters: there is nothing to fit --pca or --dtype int8 on. Check the nodata "
                "value (--set data.nodata=...)."
            )
        most = max(1, _TOKENS // len(results))
        tokens, is_complete = [], work.chips <= CHIPS
        for number, result in enumerate(results):
            found = result.tokens()
            chosen = seeds.rng(seed, "sample tokens", number).permutation(len(found))[:most]
            tokens.append(found[np.sort(chosen)])
            is_complete &= len(chosen) == len(found)
        vectors = [v for result in results if (v := result.pooled(work.job.pool)) is not None]
        return cls(np.concatenate(tokens), np.stack(vectors), is_complete)


def fit_quantiser(features: np.ndarray, *, seed: int, is_complete: bool) -> tuple[Quantiser, Loss]:
    """Fit scales on a sample, and measure what quantisation costs.

    Where the sample is not everything, features outside it may be clipped: the loss is then that
    of scales fitted on one half and measured on the other, those returned having seen twice as
    many.
    """
    quantiser = Quantiser.fit(features)
    if is_complete or len(features) < 2:
        return quantiser, measure(quantiser, features)
    shuffled = seeds.rng(seed, "halves").permutation(len(features))
    fitted, held_out = np.array_split(shuffled, 2)
    return quantiser, measure(Quantiser.fit(features[fitted]), features[np.sort(held_out)])
