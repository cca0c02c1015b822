"""Pictures of patch tokens: principal components as colours, similarity to one marked patch."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy import ndarray

from geodino.report.content import Picture, Probes
from geodino.report.pictures import coloured, enlarged, enlargement, hatched, marked

COSINES = (0.0, 1.0)
"""Range of the colours of similarity maps."""

_SPREAD = (2.0, 98.0)
"""Percentiles of each component that become black and full colour."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TileMaps:
    """One probe tile at every step."""

    picture: Picture
    components: tuple[Picture, ...]
    marked: Picture
    """The picture with the frame of the patch that similarity is measured to."""
    similarity: tuple[Picture, ...]


def tile_maps(probes: Probes) -> tuple[TileMaps, ...]:
    """Draw every probe tile: first three components as red, green and blue, and similarities.

    One basis serves all tiles and steps: the principal components of the last step's valid
    patches, with the last step's mean and spread. Colours therefore mean the same everywhere.
    """
    tokens = [patches.transpose(0, 2, 3, 1) for patches in probes.patches]
    rows, columns = tokens[-1].shape[1:3]
    usable = covered(probes.valid, rows=rows, columns=columns)
    colours = principal_colours(tokens, usable)
    return tuple(
        _maps_of(tile, probes, usable[tile], colours, tokens) for tile in range(len(usable))
    )


def principal_colours(
    tokens: Sequence[Float[ndarray, "n h w d"]], usable: Bool[ndarray, "n h w"]
) -> list[Float[ndarray, "n h w 3"]]:
    """Return three components of every step, 0 to 1, in the basis of the last step.

    The sign of a component is chosen so that its largest loading is positive; with fewer than
    three directions the rest is 0.5.
    """
    last = tokens[-1][usable].astype(np.float64)
    last = last[np.isfinite(last).all(axis=1)]
    colours = [np.full((*t.shape[:3], 3), 0.5) for t in tokens]
    if len(last) < 2:
        return colours
    mean = last.mean(axis=0)
    basis = np.linalg.svd(last - mean, full_matrices=False)[2][:3]
    largest = np.abs(basis).argmax(axis=1)
    basis *= np.sign(basis[np.arange(len(basis)), largest])[:, None]
    low, high = np.percentile((last - mean) @ basis.T, _SPREAD, axis=0)
    for out, of_step in zip(colours, tokens, strict=True):
        projected = (of_step.astype(np.float64) - mean) @ basis.T
        share = (projected - low) / np.maximum(high - low, 1e-12)
        out[..., : len(basis)] = np.nan_to_num(share, nan=0.5).clip(0.0, 1.0)
    return colours


def covered(
    valid: Bool[ndarray, "n h w"], *, rows: int, columns: int
) -> Bool[ndarray, "n rows columns"]:
    """Whether at least half of the pixels under each patch are valid."""
    n, height, width = valid.shape
    blocks = valid.reshape(n, rows, height // rows, columns, width // columns)
    return np.asarray(blocks.mean(axis=(2, 4)) >= 0.5)


def chosen_patch(usable: Bool[ndarray, "h w"]) -> tuple[int, int]:
    """Return the usable patch nearest the middle (the first of equals, row by row)."""
    rows, columns = np.indices(usable.shape)
    height, width = usable.shape
    distance = (rows - height // 2) ** 2 + (columns - width // 2) ** 2
    best = np.where(usable, distance, height**2 + width**2).argmin()
    row, column = np.unravel_index(int(best), usable.shape)
    return int(row), int(column)


def cosines(tokens: Float[ndarray, "h w d"], at: tuple[int, int]) -> Float[ndarray, "h w"]:
    """Cosine of every token with the one at ``at``; 0 for tokens without a direction."""
    values = tokens.astype(np.float64)
    norms = np.linalg.norm(values, axis=-1)
    return np.asarray((values @ values[at]) / np.maximum(norms * norms[at], 1e-12))


def _maps_of(
    tile: int,
    probes: Probes,
    usable: Bool[ndarray, "h w"],
    colours: Sequence[Float[ndarray, "n h w 3"]],
    tokens: Sequence[Float[ndarray, "n h w d"]],
) -> TileMaps:
    picture, name = probes.pictures[tile], f"probe tile {tile + 1}"
    at = chosen_patch(usable)
    low, high = COSINES
    components, similarity = [], []
    for step, colour, of_step in zip(probes.steps, colours, tokens, strict=True):
        rgb = np.rint(255 * colour[tile]).astype(np.uint8)
        components.append(
            Picture(rgb=_shown(rgb, usable), alt=f"Components of {name} at step {step}")
        )
        near = coloured(cosines(of_step[tile], at), low=low, high=high)
        similarity.append(
            Picture(
                rgb=_shown(near, usable),
                alt=f"Similarity of the patches of {name} to the marked one at step {step}",
            )
        )
    (top, bottom), (left, right) = (
        (i * side // patches, (i + 1) * side // patches)
        for i, side, patches in zip(at, picture.rgb.shape[:2], usable.shape, strict=True)
    )
    frame = marked(picture.rgb, top=top, left=left, height=bottom - top, width=right - left)
    return TileMaps(
        picture=picture,
        components=tuple(components),
        marked=Picture(rgb=frame, alt=f"{picture.alt}, one patch framed"),
        similarity=tuple(similarity),
    )


def _shown(rgb: UInt8[ndarray, "h w 3"], usable: Bool[ndarray, "h w"]) -> UInt8[ndarray, "h2 w2 3"]:
    factor = enlargement(max(usable.shape))
    return hatched(enlarged(rgb, factor), enlarged(usable, factor))
