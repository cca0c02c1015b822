"""What ``geodino embed`` was asked, and what it works with once rasters and model fit."""

from dataclasses import dataclass

import torch

from geodino.errors import RecipeError
from geodino.runs.embed.model import EmbeddingModel
from geodino.runs.mapping.job import MapJob

DTYPES = {
    ".tif": ("float32", "int8"),
    ".zarr": ("float32", "float16", "int8"),
    ".parquet": ("float32", "float16", "int8"),
}
"""Formats by the ending of ``--out``, and the types each can store. GeoTIFF has no float16 here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbedJob(MapJob):
    """What ``geodino embed`` was asked."""

    pca: int = 0
    pool: str = "mean"
    seed: int = 0

    @property
    def format(self) -> str:
        """``.tif``, ``.zarr`` or ``.parquet``; another ending is returned as it is."""
        suffix = self.out.suffix.lower()
        return ".tif" if suffix in ("", ".tiff") else suffix

    @property
    def keeps_apart(self) -> bool:
        """Whether what is written holds several rasters, each by itself."""
        return self.is_folder or (self.format != ".tif" and self.mosaic is None)

    @property
    def otherwise(self) -> str:
        """What to do with rasters that do not become one map."""
        folder = self.out.with_suffix("")
        return f"write a map for each to a folder (--out {folder}), or all to a .zarr or .parquet"

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
        if self.goes_on and self.format == ".parquet":
            raise RecipeError(
                "--resume, --shard and --assemble are of maps: a .parquet is written in one go. "
                "Write FILE.tif, FILE.zarr or a folder, or leave them out."
            )
        if self.format == ".parquet" and (self.overlap or self.max_memory is not None):
            raise RecipeError(
                "--overlap and --max-memory are of maps: the rows of a table are chips side by "
                "side, of which one row is in memory at a time. Leave them out, or write .tif or "
                ".zarr."
            )
        if self.format == ".parquet" and self.mosaic is not None:
            raise RecipeError(
                "--mosaic is of maps: a table has a row for each chip of each raster. Leave it out, "
                "or write .tif or .zarr."
            )
        self.check_shared()

    def command(self) -> str:
        """Return the command that repeats this job, whatever it was interrupted or shared by."""
        own = {
            "--dtype": self.dtype,
            "--pca": self.pca or None,
            "--pool": self.pool if self.format == ".parquet" else None,
            "--seed": self.seed or None,
        }
        return self.told("embed", own)


@dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """What is asked, and the model that does it."""

    job: EmbedJob
    model: EmbeddingModel
    device: torch.device
    chip: int
    """Side of a chip, pixels."""

    overlap: int
    """Pixels that chips share; 0 for a table."""

    @property
    def dim(self) -> int:
        """Width of the features."""
        return self.model.loaded.backbone.dim

    @property
    def patch(self) -> int:
        """Side of a patch, pixels."""
        return self.model.loaded.backbone.patch_size
