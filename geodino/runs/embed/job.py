"""What ``geodino embed`` was asked, and what it works with once rasters and model fit."""

import shlex
from dataclasses import dataclass, field
from pathlib import Path

from geodino.errors import RecipeError
from geodino.infer.chips import Chipping
from geodino.infer.encode import Encoder
from geodino.runs.embed.model import EmbeddingModel
from geodino.runs.record import RunLog
from geodino.runs.sources import Meeting, Source, rfc3339

DTYPES = {
    ".tif": ("float32", "int8"),
    ".zarr": ("float32", "float16", "int8"),
    ".parquet": ("float32", "float16", "int8"),
}
"""Formats by the ending of ``--out``, and the types each can store. GeoTIFF has no float16 here."""

_NAMED = 20
"""Rasters that a recorded command names."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedJob:
    """What ``geodino embed`` was asked."""

    rasters: tuple[str, ...]
    model: str
    out: Path
    dtype: str = "float32"
    pca: int = 0
    pool: str = "mean"
    how: Meeting = field(default_factory=Meeting)
    overrides: tuple[str, ...] = ()
    """``data.KEY=VALUE``: how files are read."""

    datetime: str | None = None
    """Acquisition of all rasters."""

    seed: int = 0
    device: str = "auto"
    overwrite: bool = False
    strict: bool = False
    dry_run: bool = False
    quiet: bool = False

    @property
    def format(self) -> str:
        """``.tif``, ``.zarr`` or ``.parquet``; another ending is returned as it is."""
        suffix = self.out.suffix.lower()
        return ".tif" if suffix in ("", ".tiff") else suffix

    @property
    def is_folder(self) -> bool:
        """Whether ``out`` is a folder that gets a COG for each raster."""
        return not self.out.suffix

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            RecipeError: what was asked, what can be, and what to change.
        """
        if self.format not in DTYPES:
            raise RecipeError(
                f"--out {self.out}: the ending says what is written: {', '.join(DTYPES)}, or none "
                "for a folder of GeoTIFFs."
            )
        if self.dtype not in DTYPES[self.format]:
            known = " or ".join(DTYPES[self.format])
            others = [form for form, types in DTYPES.items() if self.dtype in types]
            also = f", or write {' or '.join(others)}" if others else ""
            raise RecipeError(
                f"--dtype {self.dtype} cannot be written to {self.format}: choose {known}{also}."
            )
        if self.pca not in (0, 3):
            raise RecipeError(
                f"--pca {self.pca}: a picture has 3 components, for red, green and blue."
            )
        if self.pca and self.format == ".parquet":
            raise RecipeError(
                "--pca makes a picture of a map, but a table has no pixels: write .tif or .zarr."
            )
        if self.pool not in ("cls", "mean"):
            raise RecipeError(f"--pool {self.pool}: choose cls or mean.")
        if self.datetime is not None:
            rfc3339(self.datetime)

    def command(self) -> str:
        """Return the command that repeats this job; of many rasters it names the first few."""
        how = self.how
        options = {
            "--model": self.model,
            "--out": self.out,
            "--dtype": self.dtype,
            "--pca": self.pca or None,
            "--pool": self.pool if self.format == ".parquet" else None,
            "--bands": None if how.bands is None else ",".join(map(str, how.bands)),
            "--scale": how.scale,
            "--accept": ",".join(how.accept) or None,
            "--chip": how.chip,
            "--batch": how.batch,
            "--datetime": self.datetime,
            "--seed": self.seed or None,
        }
        more = len(self.rasters) - _NAMED
        words = ["geodino", "embed", *self.rasters[:_NAMED]]
        words += [f"(and {more} more)"] if more > 0 else []
        words += [str(w) for name, v in options.items() if v is not None for w in (name, v)]
        words += [word for override in self.overrides for word in ("--set", override)]
        return shlex.join(words)


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Everything the writing needs, once rasters and model were found to fit."""

    job: EmbedJob
    model: EmbeddingModel
    sources: tuple[Source, ...]
    """In the order in which they are written: the rasters of one map after each other."""

    chip: int
    encoder: Encoder
    log: RunLog

    @property
    def cuts(self) -> list[Chipping]:
        """How each raster is cut."""
        grids = [source.raster.grid for source in self.sources]
        return [Chipping(g.height, g.width, self.chip, self.encoder.patch) for g in grids]

    @property
    def chips(self) -> int:
        """Chips of all rasters."""
        return sum(cut.rows * cut.columns for cut in self.cuts)
