"""Features on disk, kept by what they depend on: the weights, the images, and what is done to them."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

from geodino import files
from geodino.evals.features import Extracted, Features

_ABOUT, _VECTORS = "features.json", "features.safetensors"


def cached(
    folder: Path, key: Mapping[str, Any], make: Callable[[Path], Extracted]
) -> tuple[Extracted, bool]:
    """Return features from the cache, or make and keep them; and whether they were there.

    Args:
        folder: of all caches.
        key: everything the features depend on; any JSON.
        make: makes them; patches go into the folder it is given.

    Raises:
        RunError: they cannot be written.
    """
    text = json.dumps(dict(key), sort_keys=True, default=str)
    place = folder / hashlib.sha256(text.encode()).hexdigest()[:24]
    if (place / _ABOUT).is_file():
        return _read(place), True
    found = make(place)
    _write(place, found, key)
    return found, False


def _write(place: Path, found: Extracted, key: Mapping[str, Any]) -> None:
    tensors = {"statistics": found.statistics}
    for name, features in found.features.items():
        tensors[f"{name}/blocks"] = features.blocks
        tensors[f"{name}/mean"] = features.mean_patch
    place.mkdir(parents=True, exist_ok=True)
    contiguous = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    files.write_with(place / _VECTORS, lambda path: save_file(contiguous, path))
    for patches in found.patches.values():
        if isinstance(patches, np.memmap):
            patches.flush()
    about = {
        "sizes": [list(size) for size in found.sizes],
        "encoders": list(found.features),
        "digests": list(found.digests),
        "patches": {
            name: Path(str(getattr(p, "filename", ""))).name for name, p in found.patches.items()
        },
        "key": dict(key),
    }
    files.write_json(place / _ABOUT, json.loads(json.dumps(about, default=str)))


def _read(place: Path) -> Extracted:
    about = json.loads((place / _ABOUT).read_text(encoding="utf-8"))
    tensors = load_file(place / _VECTORS)
    return Extracted(
        features={
            name: Features(blocks=tensors[f"{name}/blocks"], mean_patch=tensors[f"{name}/mean"])
            for name in about["encoders"]
        },
        statistics=tensors["statistics"],
        patches={
            name: np.load(place / file, mmap_mode="r") for name, file in about["patches"].items()
        },
        digests=tuple(about["digests"]),
        sizes=tuple((int(h), int(w)) for h, w in about["sizes"]),
    )
