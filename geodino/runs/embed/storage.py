"""Features as a store or a table holds them."""

import numpy as np
from jaxtyping import Float, Shaped

from geodino.infer.quantise import Quantiser
from geodino.infer.tokens import halved


def scales_of(quantiser: Quantiser | None) -> list[float] | None:
    """Return per dimension what stored values are multiplied by; None where features are stored."""
    return None if quantiser is None else [float(step) for step in quantiser.scale]


def in_type(features: Shaped[np.ndarray, "..."], dtype: str) -> Shaped[np.ndarray, "..."]:
    """Return features in the type of a store or table; int8 they are already.

    Raises:
        RunError: a feature too large for float16.
    """
    if dtype == "float16":
        return halved(features)
    return features.astype(dtype, copy=False)


def stored(
    features: Float[np.ndarray, "d"], quantiser: Quantiser | None, dtype: str
) -> Shaped[np.ndarray, "d"]:
    """Return a vector as it is stored.

    Raises:
        RunError: a feature too large for float16.
    """
    return in_type(features if quantiser is None else quantiser.quantise(features), dtype)
