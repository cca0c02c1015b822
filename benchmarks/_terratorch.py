"""terratorch's tiled inference, where it is installed."""

import importlib.util
import sys
import types
from pathlib import Path

ABSENT = "terratorch is not installed: its row is left out (pip install --no-deps terratorch)."


def terratorch() -> types.ModuleType | None:
    """Return terratorch's module of tiled inference alone: the package loads half of its field."""
    found = importlib.util.find_spec("terratorch")
    if found is None or found.origin is None:
        return None
    path = Path(found.origin).parent / "tasks" / "tiled_inference.py"
    spec = importlib.util.spec_from_file_location("terratorch_tiled_inference", path)
    if spec is None or spec.loader is None:
        return None
    module = importlib.util.module_from_spec(spec)
    # It imports one function that it does not call, and with it all of terratorch's models.
    models = types.ModuleType("terratorch.models.utils")
    models.pad_images = None  # type: ignore[attr-defined]
    parents = {name: types.ModuleType(name) for name in ("terratorch", "terratorch.models")}
    stand_ins = {**parents, models.__name__: models}
    sys.modules.update(stand_ins)
    try:
        spec.loader.exec_module(module)
    finally:
        for name in stand_ins:
            del sys.modules[name]
    return module
