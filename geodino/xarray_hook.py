"""Register the accessor ``DataArray.geodino``, whichever of the two packages is imported first.

Neither imports the other: xarray takes half a second, which ``geodino --help`` must not pay, and
the accessor's own module is loaded when somebody uses it.
"""

import importlib
import sys
from importlib.abc import Loader
from types import ModuleType
from typing import Any

from geodino import import_hook

NAME = "geodino"


def install() -> None:
    """Register now if xarray is there, else as soon as it is imported; imports nothing."""
    xarray = sys.modules.get("xarray")
    if xarray is not None:
        _register(xarray)
    else:
        import_hook.install("xarray", _load)


def _load(loader: Loader, module: ModuleType) -> None:
    loader.exec_module(module)
    _register(module)


def _register(xarray: ModuleType) -> None:
    if hasattr(xarray.DataArray, NAME):  # xarray warns when a name is taken a second time
        return
    xarray.register_dataarray_accessor(NAME)(_accessor)


def _accessor(array: Any) -> Any:
    """By name: everything imports this package, so a plain import would tie all floors to `api`."""
    return importlib.import_module("geodino.api.accessor").Accessor(array)
