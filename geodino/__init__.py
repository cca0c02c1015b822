"""geodino: from satellite and aerial tiles to a foundation model, and from that model to maps."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geodino import torchvision_hook, xarray_hook

if TYPE_CHECKING:
    from geodino.api import (
        change,
        distill,
        embed,
        evaluate,
        finetune,
        load,
        predict,
        pretrain,
        recommend,
    )

__version__ = "0.1.0"

__all__ = [
    "change",
    "distill",
    "embed",
    "evaluate",
    "finetune",
    "load",
    "predict",
    "pretrain",
    "recommend",
]

torchvision_hook.install()
xarray_hook.install()


def __getattr__(name: str) -> Any:
    if name in __all__:
        # By name: everything imports this package, so a plain import would tie all floors to `api`.
        return getattr(import_module("geodino.api"), name)
    raise AttributeError(f"module 'geodino' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
