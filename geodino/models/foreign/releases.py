"""What the published models demand of their input, and the licence they come with."""

from collections.abc import Sequence
from dataclasses import dataclass

from geodino.errors import CheckpointError, suggest
from geodino.geo.bands import Band
from geodino.geo.contract import InputContract
from geodino.models.card import DINOV3_LICENSE
from geodino.models.sizes import ModelConfig

EUPE_LICENSE = "fair-noncommercial-research-license"

IMAGE_SIZE = 256
"""Side of the crops the releases were trained on, pixels."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """One set of published weights."""

    mean: tuple[float, float, float]
    """Of red, green and blue in 0..1."""

    std: tuple[float, float, float]
    gsd_m: tuple[float, float] | None
    """Ground sampling distance of its images, metres."""


RELEASES: dict[str, Release] = {
    "lvd1689m": Release(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225), gsd_m=None),
    "sat493m": Release(mean=(0.430, 0.411, 0.296), std=(0.213, 0.156, 0.143), gsd_m=(0.6, 0.6)),
}
"""By the name of the images they were trained on."""

CHMV2 = Release(mean=(0.420, 0.411, 0.296), std=(0.213, 0.156, 0.143), gsd_m=(0.6, 0.6))
"""Of the canopy head, which was trained with another mean of red than its sat493m backbone."""


def release_of(config: ModelConfig, asked: str | None, *, source: str) -> str:
    """Say which images a file of the release was trained on, as far as its tensors tell.

    Args:
        config: the model.
        asked: what the user said; None reads it off the model.
        source: named in errors.

    Raises:
        CheckpointError: an unknown name, or tensors that do not tell.
    """
    if asked is not None:
        if asked not in RELEASES:
            raise CheckpointError(
                f"{source}@{asked}: unknown images.{suggest(asked, RELEASES)} Known: "
                f"{', '.join(RELEASES)}."
            )
        return asked
    if not config.local_cls_norm:
        return "lvd1689m"
    if config.name.startswith("vit_7b"):
        raise CheckpointError(
            f"{source}: the tensors of the 7B do not say whether it was trained on web or on "
            f"satellite images, which differ in mean and standard deviation. Write "
            f"{source}@lvd1689m or {source}@sat493m."
        )
    return "sat493m"


def release_contract(name: str) -> InputContract:
    """Return the contract of a release: red, green and blue as bytes."""
    return contract_of(RELEASES[name], name)


def contract_of(release: Release, name: str) -> InputContract:
    """Return the contract of published statistics: red, green and blue as bytes."""
    return rgb_contract(
        [255 * v for v in release.mean],
        [255 * v for v in release.std],
        gsd_m=release.gsd_m,
        origin=f"published with the {name} weights",
    )


def rgb_contract(
    mean: Sequence[float],
    std: Sequence[float],
    *,
    origin: str,
    dtype: str = "uint8",
    gsd_m: tuple[float, float] | None = None,
) -> InputContract:
    """Return a contract for published statistics: RGB, or positional bands if there are not three.

    Args:
        mean: of stored values.
        std: of stored values.
        origin: where the numbers come from.
        dtype: stored type.
        gsd_m: smallest and largest ground sampling distance.
    """
    count = len(mean)
    if count == 3:
        bands = tuple(Band(name=n, common_name=n) for n in ("red", "green", "blue"))
    else:
        bands = tuple(Band(name=f"band_{i + 1}") for i in range(count))
    high = 255.0 if dtype == "uint8" else 1.0
    return InputContract(
        bands=bands,
        dtype=dtype,
        mean=tuple(float(v) for v in mean),
        std=tuple(float(v) for v in std),
        low=(0.0,) * count,
        high=(high,) * count,
        gsd_m=gsd_m,
        statistics={"origin": origin},
    )


def license_of_file(*, is_noncommercial: bool) -> str:
    """Return the licence of a file in the release's layout."""
    return EUPE_LICENSE if is_noncommercial else DINOV3_LICENSE
