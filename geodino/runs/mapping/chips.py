"""The chips of a map: how large they are, what they share, and how many are computed together."""

import torch

from geodino.errors import RecipeError

OVERLAP = 64
"""Pixels that chips share by default, a patch of which at each end is not used."""

_BATCH_PIXELS = {"cpu": 512 * 512, "cuda": 2048 * 2048}
"""Pixels of a batch: enough to keep the device busy."""


def chip_side(wanted: int, *, patch: int) -> int:
    """Return the side of a chip, pixels.

    Raises:
        RecipeError: not a whole number of patches.
    """
    if wanted < patch or wanted % patch:
        below = max(patch, wanted // patch * patch)
        raise RecipeError(
            f"--chip {wanted}: a chip is a whole number of patches of {patch} px. "
            f"Choose {below} or {below + patch}."
        )
    return wanted


def chip_overlap(wanted: int | None, *, chip: int, patch: int, default: int | None = None) -> int:
    """Return the pixels that chips share.

    Args:
        wanted: what was asked for.
        chip: side of a chip, pixels.
        patch: side of a patch, pixels.
        default: what the model was made with; None is 64 px. At most half a chip is shared.

    Raises:
        RecipeError: not a whole number of patches, or more than half a chip.
    """
    most = chip // 2 // patch * patch
    if wanted is None:
        return min(-(-OVERLAP // patch) * patch if default is None else default, most)
    if not 0 <= wanted <= most or wanted % patch:
        raise RecipeError(
            f"--overlap {wanted}: chips of {chip} px share a multiple of {patch} px, at most "
            f"{most}."
        )
    return wanted


def chip_group(wanted: int | None, *, chip: int, device: torch.device, most: int = 64) -> int:
    """Return how many chips are computed together: part of the result, to the last bit."""
    fitting = _BATCH_PIXELS[device.type] // (chip * chip)
    return wanted or max(1, min(most, fitting))
