"""What the metadata of a satellite product says about the numbers in its files."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

_BASELINE = re.compile(r"_MSIL[12][AC]_\d{8}T\d{6}_N(\d{4})_")
_TAG = re.compile(r"<PROCESSING_BASELINE>\s*(\d\d\.\d\d)\s*</PROCESSING_BASELINE>")
_OFFSETS = re.compile(r'<BOA_ADD_OFFSET band_id="\d+">\s*(-?\d+)\s*</BOA_ADD_OFFSET>')

SENTINEL_2_OFFSET = -0.1
"""Added to ``stored * 0.0001`` from processing baseline 04.00 on: 1000 was added to the numbers."""


@dataclass(frozen=True, slots=True)
class Offset:
    """An offset and where it was found."""

    value: float
    found_in: str


def sentinel_2_offset(path: str) -> Offset | None:
    """Return the reflectance offset of a Sentinel-2 Level-2A file; None if nothing tells it.

    Looked at, in this order: ``MTD_MSIL2A.xml`` in a folder above the file, and the processing
    baseline in the product's name (``..._N0509_...``). Copernicus, "Sentinel-2 Products
    Specification Document", processing baseline 04.00.
    """
    for folder in Path(path).parents:
        found = _of_folder(folder)
        if found is not None:
            return found
    return None


def offset_of_baseline(baseline: str, found_in: str) -> Offset:
    """Return the offset of a processing baseline such as ``05.09``."""
    major = int(baseline.split(".", maxsplit=1)[0])
    return Offset(SENTINEL_2_OFFSET if major >= 4 else 0.0, f"baseline {baseline} in {found_in}")


@lru_cache(maxsize=4096)
def _of_folder(folder: Path) -> Offset | None:
    metadata = folder / "MTD_MSIL2A.xml"
    if metadata.is_file():
        text = metadata.read_text(encoding="utf-8", errors="replace")
        offsets = {int(value) for value in _OFFSETS.findall(text)}
        if len(offsets) == 1:
            return Offset(offsets.pop() * 1e-4, metadata.name)
        tag = _TAG.search(text)
        if tag is not None:
            return offset_of_baseline(tag[1], metadata.name)
    name = _BASELINE.search(folder.name)
    if name is not None:
        return offset_of_baseline(f"{name[1][:2]}.{name[1][2:]}", "the product's name")
    return None
