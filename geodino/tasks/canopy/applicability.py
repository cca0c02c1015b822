"""How far a patch is from everything the head was trained on, in the features of its backbone.

A head knows nothing of ground unlike its training ground, and its heights there look like any
others. Kept are some patch tokens of the training crops; a patch is as far as its nearest kept
token, in units of how close that token's own neighbours are.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Num
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from geodino import files, seeds
from geodino.errors import CheckpointError
from geodino.models.backbone import Backbone

APPLICABILITY = "applicability.safetensors"
"""Its file in the model folder."""

_NEIGHBOURS = 4
"""A token's scale is its distance to the so-many-th nearest other token."""

_USUAL = 0.95
"""Share of held-out patches that are nearer than 1."""

_AT_ONCE = 4096


@dataclass(frozen=True, kw_only=True, slots=True)
class Applicability:
    """What is kept of the training ground."""

    tokens: Float[Tensor, "n d"]
    """Patch tokens of length 1."""

    scales: Float[Tensor, "n"]
    """Distance at which each counts as near."""

    unit: float
    """The 95th percentile of the scaled distances of held-out patches: what a distance of 1 is."""

    def distances(self, patches: Float[Tensor, "*s d"]) -> Float[Tensor, "*s"]:
        """Return how far patches are from the training ground; 1 is rarely exceeded on such ground.

        Args:
            patches: of the backbone's last layer, normalised by its last norm.
        """
        return _scaled(patches, self.tokens, self.scales) / self.unit

    def to(self, device: torch.device) -> "Applicability":
        """Return it on a device."""
        return replace(self, tokens=self.tokens.to(device), scales=self.scales.to(device))

    def save(self, folder: Path | str) -> None:
        """Write it into a model folder, whole or not at all."""
        tensors = {
            "tokens": self.tokens.contiguous(),
            "scales": self.scales.contiguous(),
            "unit": torch.tensor([self.unit]),
        }
        path = Path(folder) / APPLICABILITY
        files.write_with(path, lambda temporary: save_file(tensors, temporary, {"format": "pt"}))


def load_applicability(folder: Path | str) -> Applicability | None:
    """Read it from a model folder; None where there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    path = Path(folder) / APPLICABILITY
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            tokens, scales, unit = (stored.get_tensor(k) for k in ("tokens", "scales", "unit"))
    except SafetensorError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}): restore it from a copy, or remove it, and nothing is "
            "said of how far a map is from the training ground."
        ) from error
    return Applicability(tokens=tokens, scales=scales, unit=float(unit[0]))


def fit_applicability(
    training: Float[Tensor, "n d"], held_out: Float[Tensor, "m d"], *, tokens: int, seed: int
) -> Applicability | None:
    """Keep some of the training tokens, and scale distances by held-out ones.

    Args:
        training: patch tokens of training ground.
        held_out: of ground that was not trained on; without any, the unit is 1 of the scales.
        tokens: how many to keep.
        seed: of the draw.

    Returns:
        None where there are too few tokens to tell near from far.
    """
    if len(training) <= _NEIGHBOURS or tokens <= _NEIGHBOURS:
        return None
    order = seeds.rng(seed, "applicability").permutation(len(training))[:tokens]
    kept = torch.nn.functional.normalize(training[torch.from_numpy(order)].float(), dim=-1)
    distance = torch.cdist(kept, kept)
    # The nearest of all is the token itself.
    scales = distance.kthvalue(min(_NEIGHBOURS + 1, len(kept)), dim=-1).values.clamp_min(1e-3)
    unit = 1.0
    if len(held_out):
        unit = float(torch.quantile(_scaled(held_out, kept, scales)[: _AT_ONCE * 16], _USUAL))
    return Applicability(tokens=kept, scales=scales, unit=max(unit, 1e-6))


def _scaled(
    patches: Float[Tensor, "*s d"], tokens: Float[Tensor, "n d"], scales: Float[Tensor, "n"]
) -> Float[Tensor, "*s"]:
    flat = torch.nn.functional.normalize(patches.float().flatten(0, -2), dim=-1)
    nearest = [
        (torch.cdist(part, tokens) / scales).min(dim=-1).values
        for part in torch.split(flat, _AT_ONCE)
    ]
    return torch.cat(nearest).reshape(patches.shape[:-1]) if nearest else flat.new_zeros((0,))


@torch.inference_mode()
def patch_tokens(
    backbone: Backbone, pixels: Num[Tensor, "b c h w"], valid: Bool[Tensor, "b h w"]
) -> Float[Tensor, "n d"]:
    """Return the tokens of patches that hold no invalid pixel, on the CPU."""
    side = backbone.patch_size
    tokens = backbone.tokens(pixels, valid).patches
    rows, columns = valid.shape[-2] // side, valid.shape[-1] // side
    whole = valid.reshape(len(valid), rows, side, columns, side).all(dim=4).all(dim=2)
    found: Tensor = tokens[whole.flatten(1)].float().cpu()
    return found
