"""What ``geodino change`` was asked."""

from dataclasses import dataclass
from typing import get_args

from geodino.errors import RecipeError
from geodino.infer.change import ChangeProduct, ChangeType
from geodino.runs.mapping.job import MapJob

_PRODUCTS: dict[str, ChangeProduct] = {
    dtype: ChangeProduct(dtype=dtype) for dtype in get_args(ChangeType)
}


@dataclass(frozen=True, kw_only=True, slots=True)
class ChangeJob(MapJob):
    """What ``geodino change`` was asked; ``rasters`` are the earlier and the later date."""

    @property
    def product(self) -> ChangeProduct:
        """What is stored."""
        return _PRODUCTS[self.dtype]

    @property
    def otherwise(self) -> str:
        """What to do with rasters of a date that do not become one."""
        return "name one raster for each date"

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            RecipeError: what was asked, what can be, and what to change.
        """
        if len(self.rasters) != 2:
            raise RecipeError(
                f"{len(self.rasters)} raster(s) were named: name two, BEFORE and AFTER."
            )
        if self.out.suffix.lower() not in (".tif", ".tiff"):
            raise RecipeError(f"--out {self.out}: change is written as FILE.tif.")
        if self.dtype not in _PRODUCTS:
            raise RecipeError(f"--dtype {self.dtype}: choose {' or '.join(_PRODUCTS)}.")
        self.check_shared()

    def command(self) -> str:
        """Return the command that repeats this job, whatever it was interrupted or shared by."""
        return self.told("change", {"--dtype": self.dtype})
