"""A backbone with a head on it: what every task learns."""

from collections.abc import Iterator

from torch import nn

from geodino.models.backbone import Backbone


class HeadedModel(nn.Module):
    """A backbone and a head.

    A backbone none of whose parameters requires a gradient is frozen: it runs without a graph and
    stays in evaluation mode whatever the mode of the model.

    Args:
        backbone: with its weights.

    Attributes:
        backbone: of any family.
        head: whatever stands on it; a subclass sets it.
    """

    head: nn.Module

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone

    @property
    def is_frozen(self) -> bool:
        """Whether no parameter of the backbone requires a gradient."""
        return not any(p.requires_grad for p in self.backbone.parameters())

    def freeze(self) -> None:
        """Let no parameter of the backbone learn."""
        self.backbone.requires_grad_(requires_grad=False)
        self.backbone.eval()

    def unfreeze(self) -> None:
        """Let every parameter of the backbone learn."""
        self.backbone.requires_grad_(requires_grad=True)

    def head_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters of the head alone."""
        return self.head.parameters()

    def train(self, mode: bool = True) -> "HeadedModel":
        """Set the mode; a frozen backbone stays in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.backbone.eval()
        return self
