"""Boxes of one image as PASCAL VOC's XML files hold them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

from geodino.data.labelled.boxes import BoxCounts, Turned, checked, class_number
from geodino.data.labelled.sets import Boxes
from geodino.errors import SourceError

_DECLARED = ("<!ENTITY", "<!DOCTYPE")
_CODES = ("ascii", "utf-16-le", "utf-16-be")
"""Encodings of XML that the parser reads, as far as these words differ in them."""

_FLAGS = {
    "": False, "0": False, "false": False, "unspecified": False, "1": True, "true": True,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True, slots=True)
class VocFile:
    """What one XML file says."""

    size: tuple[int, int]
    """Height and width."""

    boxes: Boxes


def read_voc(path: Path, classes: Sequence[str], *, turned: Turned, counts: BoxCounts) -> VocFile:
    """Read one XML file; coordinates are taken as they are, as corners in pixels.

    Args:
        path: the file.
        classes: their names; upper case, blanks, hyphens and underscores do not count.
        turned: what becomes of turned boxes (``robndbox``).
        counts: what was mended is added to it.

    Raises:
        SourceError: the file is damaged, or a box in it cannot be used.
    """
    root = _root(path)
    height, width = (_number(root, f"size/{side}", path) for side in ("height", "width"))
    if height < 1 or width < 1:
        raise SourceError(f"{path} says that its image has {height:g} x {width:g} px: mend it.")
    rows, numbers, difficult = [], [], []
    known = [_plain(name) for name in classes]
    for one in root.iter("object"):
        rows.append(_corners(one, path, turned))
        numbers.append(class_number(_plain(one.findtext("name") or ""), known, source=str(path)))
        difficult.append(_flag(one, "difficult", path))
    size = (int(height), int(width))
    return VocFile(
        size=size,
        boxes=checked(rows, numbers, difficult, size=size, source=str(path), counts=counts),
    )


def _root(path: Path) -> ET.Element:
    try:
        text = path.read_bytes()
        # Entities are how an XML file of a few bytes fills a memory; boxes need none.
        if any(word.encode(code) in text for word in _DECLARED for code in _CODES):
            raise SourceError(f"{path} declares entities, which labels do not need: remove them.")
        return ET.fromstring(text)  # noqa: S314 - without entities there is nothing to expand
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}): restore it.") from error
    except ET.ParseError as error:
        raise SourceError(f"{path} is no XML ({error}): unpack it again.") from error


def _corners(one: ET.Element, path: Path, turned: Turned) -> list[float]:
    if one.find("bndbox/xmin") is not None:
        return [_number(one, f"bndbox/{name}", path) for name in ("xmin", "ymin", "xmax", "ymax")]
    box = one.find("robndbox")
    if box is None:
        raise SourceError(f"{path}: an object has no bndbox with xmin, ymin, xmax, ymax: mend it.")
    if turned == "refuse":
        raise SourceError(
            f"{path} holds turned boxes (robndbox), and detection here is of upright ones: give the "
            "horizontal boxes, or ask for the upright box around each (turned: upright)."
        )
    corners = [
        [_number(box, f"{axis}_{name}", path) for axis in "xy"]
        for name in ("left_top", "right_top", "right_bottom", "left_bottom")
    ]
    across, down = zip(*corners, strict=True)
    return [min(across), min(down), max(across), max(down)]


def _number(element: ET.Element, name: str, path: Path) -> float:
    text = element.findtext(name)
    try:
        return float(text or "")
    except ValueError:
        raise SourceError(f"{path}: {name} is {text!r}, and a number is needed: mend it.") from None


def _flag(element: ET.Element, name: str, path: Path) -> bool:
    text = (element.findtext(name) or "").strip().lower()
    if text not in _FLAGS:
        raise SourceError(f"{path}: {name} is {text!r}, and 0 or 1 is needed: mend it.")
    return _FLAGS[text]


def _plain(name: str) -> str:
    return name.strip().lower().replace("-", "").replace("_", "").replace(" ", "")
