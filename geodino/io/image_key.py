"""Pictures by name: a file, or some bytes of a shard, read as an image and not as a map.

``image:/data/a.jpg`` is a file; ``image:/data/000.tar:1536+48210:cat/1.jpg`` is the member
``cat/1.jpg`` of a shard, 48,210 bytes from byte 1,536 on. The prefix says that orientation tags,
palettes and transparency count, as they do for whoever looks at a photograph; the place in the
shard is part of the name, so nothing is searched for or unpacked when pixels are read.
"""

import re
from dataclasses import dataclass
from pathlib import Path

PREFIX = "image:"

DRIVER = "image"
"""What :class:`geodino.io.metadata.RasterInfo` says of such a raster in the place of a driver."""

_MEMBER = re.compile(
    r"(?P<file>.+?\.tar):(?P<start>\d+)\+(?P<size>\d+):(?P<name>.+)", re.DOTALL | re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class ImageKey:
    """Where the bytes of a picture are."""

    file: str
    """The file, or the shard."""

    start: int = 0
    """First byte in the shard."""

    size: int | None = None
    """Bytes in the shard; None for a file, which is the picture from its start to its end."""

    name: str = ""
    """The member's name in the shard; a label, never a path that is opened."""

    def __str__(self) -> str:
        place = "" if self.size is None else f":{self.start}+{self.size}:{self.name}"
        return f"{PREFIX}{self.file}{place}"

    @property
    def shown(self) -> str:
        """What a person calls it: the file, or shard and member."""
        return self.file if self.size is None else f"{self.file}/{self.name}"


def find_image(path: str) -> ImageKey | None:
    """Return the picture that a name means; None for anything else."""
    if not path.startswith(PREFIX):
        return None
    text = path.removeprefix(PREFIX)
    member = _MEMBER.fullmatch(text)
    if member is None:
        return ImageKey(text)
    return ImageKey(member["file"], int(member["start"]), int(member["size"]), member["name"])


def stamp(key: ImageKey) -> tuple[int, int]:
    """Return the bytes of a picture and when its file last changed, nanoseconds since 1970.

    Raises:
        OSError: the file vanished or cannot be looked at.
    """
    stat = Path(key.file).stat()
    return (stat.st_size if key.size is None else key.size), stat.st_mtime_ns
