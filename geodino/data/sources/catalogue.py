"""From what a user calls a source to scenes: files, folders, stores, shards, STAC, descriptors."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geodino.data.config import DataConfig
from geodino.data.sources.descriptor import (
    FILE,
    Descriptor,
    descriptor_names,
    descriptor_path,
    load_descriptor,
    root_of,
)
from geodino.data.sources.find import WORLD, Found, find, is_remote
from geodino.data.sources.scenes import Scene, described
from geodino.data.sources.stac import is_stac, stac_scenes
from geodino.errors import SourceError
from geodino.io.raster import RasterInfo
from geodino.io.zarr.key import find_key
from geodino.io.zarr.store import describe_store

NONE = "none"
"""``data.dataset`` that takes every file as a tile of its own."""

_SHOWN = 3


@dataclass(kw_only=True, slots=True)
class Catalogue:
    """The scenes of a source, before any file is opened (stores excepted)."""

    root: str
    scenes: list[Scene]
    descriptor: Descriptor | None = None
    notes: list[str] = field(default_factory=list)

    infos: dict[str, RasterInfo] = field(default_factory=dict)
    """Rasters whose metadata is known already: those inside zarr stores."""

    bad: list[tuple[str, str]] = field(default_factory=list)
    """Stores that cannot be used: (path, reason)."""


def catalogue(src: str | Path, config: DataConfig) -> Catalogue:
    """List the scenes of a source.

    ``src`` is a folder, glob, file, shard, zarr store or URL of them; a STAC document; a
    ``world:`` name; or a descriptor (a folder with ``dataset.yaml``, or that file) that says where
    its files are.

    Raises:
        SourceError: nothing usable is there, or a descriptor does not fit.
    """
    text = str(src)
    if text.startswith(WORLD):
        from geodino.data.generated.worlds import materialise

        text = str(materialise(text.removeprefix(WORLD)))
    descriptor, name, text = _descriptor(text, config)
    if is_stac(text):
        if not is_remote(text) and not Path(text).is_file():
            raise SourceError(f"{text} does not exist. Name a STAC document that does.")
        scenes, notes = stac_scenes(text, descriptor, chosen=config.bands, masked=bool(config.mask))
        root = text.rsplit("/", 1)[0] if is_remote(text) else str(Path(text).absolute().parent)
        notes += _unmasked(scenes, descriptor)
        return Catalogue(root=root, scenes=scenes, descriptor=descriptor, notes=notes)
    found = find(text)
    stores = [path for path in found.files if is_store(path)]
    if stores:
        if descriptor is not None:
            raise SourceError(
                f"{name} describes files, but {text} holds zarr stores, e.g. {stores[0]}. Name the "
                "files by a pattern, or the store without data.dataset."
            )
        return _with_stores(found, stores)
    if descriptor is None and config.dataset != NONE:
        name = recognise(found)
        descriptor = load_descriptor(name) if name else None
    if descriptor is None:
        return Catalogue(root=found.root, scenes=[Scene(name=path) for path in found.files])
    return _by_descriptor(found, descriptor, name, config)


def is_store(path: str) -> bool:
    """Whether a path is a zarr store, or a part of one (``STORE#ARRAY``)."""
    return find_key(path) is not None


def recognise(found: Found) -> str:
    """Return the packaged descriptor whose file names these are; empty if none.

    Only descriptors of one file a band are recognised: their patterns are full product names.

    Raises:
        SourceError: files of two formats, or of one beside many others.
    """
    matches = {}
    for name in descriptor_names():
        descriptor = load_descriptor(name)
        if descriptor.has_file_per_band:
            fitting = [path for path in found.files if descriptor.pattern.search(path)]
            if fitting:
                matches[name] = fitting
    if not matches:
        return ""
    if len(matches) > 1:
        listed = ", ".join(f"{len(files)} of {name}" for name, files in matches.items())
        raise SourceError(
            f"{found.root} holds files of several formats ({listed}). Choose one with data.dataset."
        )
    name, fitting = matches.popitem()
    folders = {_product(path) for path in fitting}
    others = [path for path in found.files if _product(path) not in folders]
    if others:
        raise SourceError(
            f"{found.root} holds {len(fitting)} files of {name} and {len(others)} others, e.g. "
            f"{others[0]}. Declare which are meant: data.dataset: {name} takes the former, "
            "data.dataset: none takes every file as a tile of its own."
        )
    return name


def _product(path: str) -> str:
    """Return the product folder that a file belongs to: the .SAFE folder, else its own."""
    for folder in Path(path).parents:
        if folder.suffix == ".SAFE":
            return str(folder)
    return str(Path(path).parent)


def _descriptor(src: str, config: DataConfig) -> tuple[Descriptor | None, str, str]:
    """Return the descriptor, what it is called, and where the files are."""
    declared = config.dataset if config.dataset != NONE else None
    is_own = (Path(src) / FILE).is_file() or Path(src).name == FILE
    if is_own and declared is None:
        path = descriptor_path(src)
        descriptor = load_descriptor(path)
        return descriptor, str(path), root_of(path, descriptor)
    if declared is not None:
        return load_descriptor(declared), declared, src
    if src in descriptor_names() and not Path(src).exists():
        raise SourceError(
            f"{src} is a descriptor: it says what files hold, not where they are. Name the files "
            f"with --tiles FOLDER and add --set data.dataset={src}."
        )
    return None, "", src


def _by_descriptor(
    found: Found, descriptor: Descriptor, name: str, config: DataConfig
) -> Catalogue:
    grouped = described(found.files, descriptor, root=found.root, name=name, chosen=config.bands)
    notes = [f"files are read as {name} describes them: {descriptor.description}"]
    if grouped.absent:
        notes.append(f"no scene has {', '.join(grouped.absent)}")
    if grouped.left_out:
        notes.append(
            f"{len(grouped.left_out)} rasters are not named as {name} says and are left out, e.g. "
            f"{', '.join(Path(p).name for p in grouped.left_out[:_SHOWN])}"
        )
    notes += _unmasked(grouped.scenes, descriptor)
    return Catalogue(root=found.root, scenes=grouped.scenes, descriptor=descriptor, notes=notes)


def _unmasked(scenes: Sequence[Scene], descriptor: Descriptor | None) -> list[str]:
    """Say how many scenes lack the quality layer that others of their kind have."""
    bare = sum(scene.quality is None for scene in scenes)
    if descriptor is None or descriptor.quality is None or not bare:
        return []
    return [f"{bare} of {len(scenes)} scenes have no quality layer: nothing is masked there"]


def _with_stores(found: Found, stores: Sequence[str]) -> Catalogue:
    """Take every raster of every store, and the files beside them."""
    out = Catalogue(root=found.root, scenes=[])
    for path in found.files:
        if path not in stores:
            out.scenes.append(Scene(name=path))
            continue
        try:
            contents = describe_store(path)
        except SourceError as error:
            out.bad.append((path, str(error)))
            continue
        out.infos |= {info.path: info for info in contents.rasters}
        out.scenes += [Scene(name=info.path) for info in contents.rasters]
        out.notes += [*contents.notes, *(why for _, why in contents.skipped)]
    return out
