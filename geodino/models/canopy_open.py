"""Every form of MODEL that holds a canopy model, opened the same way."""

from pathlib import Path

from geodino.errors import CheckpointError
from geodino.files import neighbour
from geodino.models.canopy_folder import LoadedCanopy, is_canopy_folder, load_canopy
from geodino.models.foreign.chmv2 import is_chmv2_folder, open_chmv2_files, open_chmv2_folder
from geodino.models.foreign.hugging_face import fetch
from geodino.models.foreign.read import SUFFIXES

_HUB = "hub:"
_TIMM = "timm:"

_FORMS = (
    "a run or model folder with a canopy head, hub:facebook/dinov3-vitl16-chmv2-dpt-head, a folder "
    "with such a repository, or BACKBONE.pth+HEAD.pth"
)


def open_canopy(model: str | Path) -> LoadedCanopy:
    """Open a canopy model.

    Args:
        model: a run or model folder with a canopy head; ``hub:OWNER/NAME``; a folder in
            transformers' layout; or ``BACKBONE+HEAD``, two files of Meta's joined by a plus, such
            as ``dinov3_vitl16.pth+chmv2_head.pth``.

    Raises:
        CheckpointError: there is no canopy model there, it is damaged, or cannot be fetched.
    """
    text = str(model)
    if text.startswith(_HUB):
        name = text.removeprefix(_HUB)
        return _open_folder(fetch(name), name=name, asked=text)
    if (pair := pair_of(text)) is not None:
        return open_chmv2_files(*pair)
    folder = Path(text)
    if not folder.exists() and not text.startswith(_TIMM):
        raise CheckpointError(f"{text} does not exist.{neighbour(folder)} Give {_FORMS}.")
    if folder.suffix in SUFFIXES and not folder.is_dir():
        raise CheckpointError(
            f"{text} is one file: a canopy model is a backbone and a head. Write BACKBONE+HEAD, two "
            "files joined by a plus, or give a folder."
        )
    if is_canopy_folder(folder / "model"):
        folder = folder / "model"
    return _open_folder(folder, name=folder.resolve().name, asked=text)


def is_canopy(model: str | Path) -> bool:
    """Whether a path holds a canopy model; nothing is fetched, so that ``hub:`` never is."""
    text = str(model)
    if text.startswith(_HUB):
        return False
    folder = Path(text)
    is_ours = is_canopy_folder(folder) or is_canopy_folder(folder / "model")
    return is_ours or pair_of(text) is not None or is_chmv2_folder(folder)


def _open_folder(folder: Path, *, name: str, asked: str) -> LoadedCanopy:
    if is_canopy_folder(folder):
        return load_canopy(folder)
    if is_chmv2_folder(folder):
        return open_chmv2_folder(folder, name=name)
    raise CheckpointError(f"{asked} holds no canopy model: give {_FORMS}.")


def pair_of(text: str) -> tuple[Path, Path] | None:
    """Return the two files around a plus, each with the ending of a weights file; else None.

    Either name may hold a plus of its own.
    """
    parts = text.split("+")
    for i in range(1, len(parts)):
        first, second = Path("+".join(parts[:i])), Path("+".join(parts[i:]))
        if first.suffix in SUFFIXES and second.suffix in SUFFIXES:
            return first, second
    return None
