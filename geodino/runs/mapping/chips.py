"""The chips of a map: how large they are, and what they share."""

from geodino.errors import RecipeError

OVERLAP = 64
"""Pixels that chips share by default, a patch of which at each end is not used."""


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
