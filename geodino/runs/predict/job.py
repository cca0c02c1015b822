"""What ``geodino predict`` was asked."""

from dataclasses import dataclass
from typing import get_args

from geodino.errors import RecipeError
from geodino.infer.heights import HeightType
from geodino.infer.symmetries import Symmetries
from geodino.runs.mapping.job import MapJob

HEIGHT_TYPES: dict[str, HeightType] = {name: name for name in get_args(HeightType)}
SYMMETRIES: dict[str, Symmetries] = {name: name for name in get_args(Symmetries)}


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictJob(MapJob):
    """What ``geodino predict`` was asked."""

    symmetries: str = "none"
    interval: bool = True
    """Whether the ends of the interval become bands, where the model has one."""

    applicability: bool = False
    """Whether the distance from the training ground becomes a band."""

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            RecipeError: what was asked, what can be, and what to change.
        """
        if self.out.suffix.lower() not in ("", ".tif", ".tiff", ".zarr"):
            raise RecipeError(
                f"--out {self.out}: a map is written as FILE.tif or FILE.zarr, or as a folder of "
                "GeoTIFFs (no ending)."
            )
        if self.dtype not in HEIGHT_TYPES:
            raise RecipeError(f"--dtype {self.dtype}: choose {' or '.join(HEIGHT_TYPES)}.")
        check_symmetries(self.symmetries)
        self.check_shared()

    def command(self) -> str:
        """Return the command that repeats this job, whatever it was interrupted or shared by."""
        own = {
            "--dtype": self.dtype,
            "--symmetries": None if self.symmetries == "none" else self.symmetries,
        }
        flags = [] if self.interval else ["--no-interval"]
        flags += ["--applicability"] if self.applicability else []
        return self.told("predict", own, flags)


def check_symmetries(word: str) -> None:
    """Refuse an unknown word.

    Raises:
        RecipeError: naming the known ones.
    """
    if word not in SYMMETRIES:
        raise RecipeError(f"--symmetries {word}: choose {' or '.join(SYMMETRIES)}.")
