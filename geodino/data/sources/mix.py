"""A mix: the YAML file that names several sources and how much of each is learnt from."""

import re
from pathlib import Path
from typing import Any

import yaml
from pydantic import Field, field_validator, model_validator

from geodino.config import Config
from geodino.data.sources.descriptor import FILE
from geodino.data.sources.find import absolute
from geodino.errors import SourceError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class SourceConfig(Config):
    """One source of a mix."""

    tiles: str
    """What ``--tiles`` would be for it alone; a relative path is one from the mix's folder."""

    weight: float = Field(default=1.0, gt=0)
    """Share of the samples of mixed steps, relative to the other sources."""

    homogeneous: bool = False
    """Whether the homogeneous steps of the mix may be of this source."""

    data: dict[str, Any] = Field(default_factory=dict)
    """Keys of ``data`` that say what this source's files are (``kind``, ``bands``, ``nodata``),
    laid over the recipe's."""


class MixConfig(Config):
    """Several sources that are learnt from together."""

    sources: dict[str, SourceConfig]
    """The sources, by a name of yours."""

    homogeneous: float = Field(default=0.0, ge=0.0, le=1.0)
    """Share of the steps whose whole batch comes from one source, drawn by weight among those
    that allow it. DINOv3's paper: 0.1, of ImageNet-1k."""

    @field_validator("sources")
    @classmethod
    def _names_are_words(cls, value: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        if not value:
            raise ValueError("must name at least one source")
        odd = [name for name in value if not _NAME.fullmatch(name)]
        if odd:
            raise ValueError(f"{odd[0]!r} must be a word of letters, digits, '_', '-' and '.'")
        return value

    @model_validator(mode="after")
    def _somebody_is_homogeneous(self) -> "MixConfig":
        if self.homogeneous > 0 and not any(s.homogeneous for s in self.sources.values()):
            raise ValueError(
                "homogeneous is above 0, but no source says `homogeneous: true`: name the sources "
                "that whole batches may come from"
            )
        return self


def is_mix(src: str | Path) -> bool:
    """Whether a source is the file of a mix: YAML, and no descriptor."""
    path = Path(src)
    return path.suffix.lower() in (".yaml", ".yml") and path.name != FILE


def load_mix(path: Path) -> MixConfig:
    """Read a mix; the tiles of its sources become absolute.

    Raises:
        SourceError: there is no such file, or it is not YAML.
        RecipeError: naming every wrong key.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SourceError(f"The mix {path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        words = " ".join(str(error).split())
        raise SourceError(f"The mix {path} is not valid YAML: {words}") from error
    if not isinstance(values, dict) or "sources" not in values:
        raise SourceError(
            f"{path} is no mix: that is a YAML file with `sources:`, a name for each and its "
            "tiles and weight. (A descriptor is called dataset.yaml.)"
        )
    mix = MixConfig.parse(values, source=str(path))
    below = path.absolute().parent
    sources = {
        name: source.model_copy(update={"tiles": _from(below, source.tiles)})
        for name, source in mix.sources.items()
    }
    return mix.model_copy(update={"sources": sources})


def _from(folder: Path, tiles: str) -> str:
    found = absolute(tiles)
    return found if found == tiles else absolute(str(folder / Path(tiles).expanduser()))
