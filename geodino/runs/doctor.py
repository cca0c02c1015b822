"""What this machine can do: versions, devices, GDAL, permissions."""

import os
import platform
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from geodino import __version__

_LIBRARIES = (
    "torch", "torchvision", "timm", "lightning", "numpy", "rasterio", "geopandas", "pyproj",
    "safetensors", "scikit-learn", "tensorboard", "transformers",
)  # fmt: skip
_DRIVERS = ("GTiff", "COG", "JPEG", "PNG", "JP2OpenJPEG", "VRT")


def examine() -> dict[str, Any]:
    """Return facts about this machine, each under a name a person understands."""
    import rasterio
    import torch
    import torchvision
    from rasterio.drivers import raster_driver_extensions
    from rasterio.env import Env

    with Env() as env:
        drivers = env.drivers()
    missing = [name for name in _DRIVERS if name not in drivers]
    operators = torchvision.extension._has_ops()
    extensions = raster_driver_extensions()
    disk = shutil.disk_usage(Path.cwd())
    return {
        "geodino": __version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        "cpus": f"{os.cpu_count()}, {torch.get_num_threads()} used by torch",
        "memory": f"{_memory_bytes() / 2**30:.0f} GiB",
        "disk free here": f"{disk.free / 2**30:.0f} GiB",
        "cuda": _cuda(),
        "bfloat16 matrix units": "yes" if _has_amx() or torch.cuda.is_available() else "not seen",
        "torchvision operators": "loaded"
        if operators
        else "not loaded (CPU build of torch): fine, nothing here needs them",
        "gdal": rasterio.__gdal_version__,
        "gdal drivers": f"{len(extensions)} file extensions"
        + (f"; missing: {', '.join(missing)}" if missing else ""),
        "temporary folder": _writable(),
        **{f"version {name}": _version(name) for name in _LIBRARIES},
    }


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"


def _memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _cuda() -> str:
    import torch

    if not torch.cuda.is_available():
        return "no device"
    names = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return ", ".join(f"{p.name} ({p.total_memory / 2**30:.0f} GiB)" for p in names)


def _has_amx() -> bool:
    info = Path("/proc/cpuinfo")
    return info.is_file() and "amx_bf16" in info.read_text(encoding="utf-8")


def _writable() -> str:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "probe").write_text("x", encoding="utf-8")
        return f"{Path(folder).parent} (writable)"
