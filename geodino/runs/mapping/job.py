"""What every command that maps rasters is asked."""

import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from geodino.errors import RecipeError
from geodino.io.area import read_area
from geodino.runs.sources import Meeting, rfc3339

_NAMED = 20
"""Rasters that a recorded command names."""

ORDERS = ("first", "last", "newest", "oldest")
"""Which raster counts where several overlap: by the order they are named in, or by date."""

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE = re.compile(r"\s*([0-9.]+)\s*([kmgt]?)(i?)b?\s*", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class MapJob:
    """What a command that maps rasters was asked."""

    rasters: tuple[str, ...]
    model: str
    out: Path
    how: Meeting = field(default_factory=Meeting)
    overlap: int | None = None
    """Pixels that neighbouring chips share; None is what the model was made with."""

    gsd_m: float | None = None
    """Ground sampling distance the model sees; None is the raster's own."""

    mosaic: str | None = None
    """Which raster counts where several overlap in one map; None refuses such rasters."""

    aoi: Path | None = None
    dtype: str = "float32"
    max_memory: int | None = None
    """Bytes this process may use at most; None is half of what the machine has."""

    shard: tuple[int, int] | None = None
    """Number from 1, and how many; only parts are written."""

    assemble: bool = False
    """Only join what the shards wrote."""

    resume: bool = False
    overrides: tuple[str, ...] = ()
    """``data.KEY=VALUE``: how files are read."""

    datetime: str | None = None
    """Acquisition of all rasters."""

    device: str = "auto"
    overwrite: bool = False
    strict: bool = False
    dry_run: bool = False
    quiet: bool = False

    @property
    def is_folder(self) -> bool:
        """Whether ``out`` is a folder that gets a map for each raster."""
        return not self.out.suffix

    @property
    def keeps_apart(self) -> bool:
        """Whether what is written holds several rasters, each by itself."""
        return self.is_folder

    @property
    def otherwise(self) -> str:
        """What to do with rasters that do not become one map."""
        return f"write a map for each to a folder (--out {self.out.with_suffix('')})"

    @property
    def is_store(self) -> bool:
        """Whether ``out`` is a zarr store."""
        return self.out.suffix.lower() == ".zarr"

    @property
    def goes_on(self) -> bool:
        """Whether parts of an earlier run are welcome."""
        return self.resume or self.assemble or self.shard is not None

    def check_shared(self) -> None:
        """Refuse options that do not go together.

        Raises:
            RecipeError: what was asked, what can be, and what to change.
            SourceError: the area cannot be read.
        """
        if self.gsd_m is not None and not self.gsd_m > 0:
            raise RecipeError(f"--gsd {self.gsd_m}: a ground sampling distance is above 0 m.")
        self._check_mosaic()
        if self.assemble and (self.shard is not None or self.resume):
            raise RecipeError(
                "--assemble joins what shards wrote: give it without --shard and --resume."
            )
        if self.overwrite and self.goes_on:
            raise RecipeError(
                "--overwrite starts again: it does not go with --resume, --shard or --assemble."
            )
        self._check_place()
        if self.datetime is not None:
            rfc3339(self.datetime)
        if self.aoi is not None:
            read_area(self.aoi, option="--aoi")

    def _check_place(self) -> None:
        """Refuse to write where rasters are looked for: the next time, maps would be among them."""
        for raster in self.rasters:
            folder = Path(raster)
            if folder.is_dir() and self.out.resolve().is_relative_to(folder.resolve()):
                raise RecipeError(
                    f"--out {self.out} lies in {raster}, where rasters are looked for: what is made "
                    f"would be taken for one of them, also by --resume. Choose another --out, or name "
                    f"the rasters by a pattern ('{folder / '*.tif'}')."
                )

    def _check_mosaic(self) -> None:
        if self.mosaic is None:
            return
        if self.mosaic not in ORDERS:
            raise RecipeError(f"--mosaic {self.mosaic}: choose {', '.join(ORDERS)}.")
        if self.is_folder:
            raise RecipeError(
                f"--mosaic makes one map of all rasters: name its file (--out {self.out}.tif), or "
                "leave it out for a map of each."
            )
        if self.datetime is not None and self.mosaic in ("newest", "oldest"):
            raise RecipeError(
                f"--datetime gives all rasters one time, so none is the {self.mosaic}: name them in "
                "the order in which they count, with --mosaic first."
            )

    def told(self, name: str, own: Mapping[str, object], flags: Sequence[str] = ()) -> str:
        """Return the command that repeats this job, whatever it was interrupted or shared by.

        Args:
            name: of the command; of many rasters it names the first few.
            own: options it has beside the shared ones; None is not told.
            flags: words without a value.
        """
        how = self.how
        options = {
            "--model": self.model,
            "--out": self.out,
            **own,
            "--mosaic": self.mosaic,
            "--aoi": self.aoi,
            "--bands": None if how.bands is None else ",".join(map(str, how.bands)),
            "--scale": how.scale,
            "--accept": ",".join(how.accept) or None,
            "--gsd": self.gsd_m,
            "--chip": how.chip,
            "--overlap": self.overlap,
            "--batch": how.batch,
            "--precision": None if how.precision == "auto" else how.precision,
            "--datetime": self.datetime,
        }
        more = len(self.rasters) - _NAMED
        words = ["geodino", name, *self.rasters[:_NAMED]]
        words += [f"(and {more} more)"] if more > 0 else []
        words += [str(w) for name, v in options.items() if v is not None for w in (name, v)]
        words += flags
        words += [word for override in self.overrides for word in ("--set", override)]
        return shlex.join(words)


def parse_memory(text: str | None) -> int | None:
    """Return bytes: ``2GB``, ``1.5 GiB``, ``800M``.

    Raises:
        RecipeError: no size.
    """
    if text is None:
        return None
    found = _SIZE.fullmatch(text)
    if found is None or not re.fullmatch(r"\d*\.?\d+|\d+\.", found[1]):
        raise RecipeError(f"--max-memory {text}: expected a size such as 2GB or 800MB.")
    unit = _UNITS[found[2].lower()]
    if found[3]:
        unit = 1024 ** list(_UNITS).index(found[2].lower())
    return int(float(found[1]) * unit)


def parse_shard(text: str | None) -> tuple[int, int] | None:
    """Return number and count of ``2/8``.

    Raises:
        RecipeError: not such a pair.
    """
    if text is None:
        return None
    number, _, count = text.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count)):
        raise RecipeError(f"--shard {text}: expected i/n with i from 1 to n, such as 2/8.")
    return int(number), int(count)
