"""The pictures of a source that is no map: files in folders, members of WebDataset shards."""

import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from geodino.data.parallel import in_order
from geodino.data.sources.find import SHARDS, is_remote, local_files
from geodino.errors import SourceError
from geodino.io.image_key import ImageKey
from geodino.io.images import IMAGES


@dataclass(frozen=True, slots=True)
class Pictures:
    """What a source of photographs holds; nothing but shards was opened."""

    root: str
    keys: tuple[ImageKey, ...]
    """Pictures, files in the order of their paths, members in the order of their shard."""

    bad: tuple[tuple[str, str], ...]
    """Shards that cannot be read to their end: (path, reason)."""

    notes: tuple[str, ...]


@dataclass(slots=True)
class _Listing:
    """The pictures of one shard; of each key one, in the order in which keys come."""

    keys: dict[str, ImageKey] = field(default_factory=dict)
    further: int = 0
    """Pictures that share the key of another, which is taken."""
    why: str | None = None
    """Why the shard ends before its end."""


def find_images(src: str, *, threads: int) -> Pictures:
    """List the pictures of a folder, a file, a shard, or a pattern of them.

    A shard is an uncompressed tar as WebDataset writes it: members that share a name up to its
    first dot are one sample, of which one picture is taken; labels and captions are left alone.
    Nothing is unpacked: a picture is some bytes of its shard.

    Raises:
        SourceError: the source is behind a network, or nothing in it is a picture.
    """
    if is_remote(src):
        raise SourceError(
            f"{src} is behind a network; photographs (data.kind: images) are read from files and "
            "shards of this machine. Copy the shards here, or mount their bucket."
        )
    root, files = local_files(src.removeprefix("file://"), IMAGES)
    shards = [file for file in files if file.suffix.lower() == SHARDS]
    listings = dict(zip(shards, in_order(_listed, shards, threads=threads), strict=True))
    keys: list[ImageKey] = []
    for file in files:
        if file in listings:
            keys += listings[file].keys.values()
        elif file.suffix.lower() in IMAGES or len(files) == 1:
            keys.append(ImageKey(str(file)))
    bad = tuple((str(file), found.why) for file, found in listings.items() if found.why)
    if not keys:
        reasons = f" {bad[0][1]}" if bad else ""
        raise SourceError(f"{src} holds no picture ({', '.join(IMAGES)}).{reasons}")
    further = sum(listing.further for listing in listings.values())
    notes = f"{further} pictures in shards share the key of another one and are left out"
    return Pictures(root, tuple(keys), bad, (notes,) if further else ())


def _listed(shard: Path) -> _Listing:
    """List a shard as far as it can be read."""
    out = _Listing()
    try:
        with tarfile.open(shard, "r:") as archive:
            for member in archive:
                _add(out, shard, member)
    except (tarfile.TarError, OSError) as error:
        words = str(error).strip().rstrip(".")
        out.why = (
            f"{shard} cannot be read to its end as an uncompressed tar archive ({words}): "
            f"{len(out.keys)} pictures before that are used. Copy it again, or write it again "
            "without compression."
        )
    return out


def _add(out: _Listing, shard: Path, member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    is_picture = member.isreg() and member.sparse is None and path.suffix.lower() in IMAGES
    if not is_picture or path.name.startswith("."):
        return
    stem, _, ending = path.name.partition(".")
    sample = str(path.parent / stem)
    known = out.keys.get(sample)
    out.further += known is not None
    # 0001.jpg is the picture of the sample, 0001.mask.png something beside it.
    is_plain = f".{ending.lower()}" in IMAGES
    if known is None or (is_plain and "." in PurePosixPath(known.name).name.partition(".")[2]):
        out.keys[sample] = ImageKey(str(shard), member.offset_data, member.size, str(path))
