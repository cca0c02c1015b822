"""What ``geodino predict`` was asked."""

from dataclasses import dataclass
from typing import get_args

from geodino.errors import RecipeError
from geodino.infer.classes import ProbabilityType
from geodino.infer.heights import HeightType
from geodino.infer.symmetries import Symmetries
from geodino.io.object_table import FORMATS
from geodino.runs.mapping.job import MapJob

HEIGHT_TYPES: dict[str, HeightType] = {name: name for name in get_args(HeightType)}
PROBABILITY_TYPES: dict[str, ProbabilityType] = {n: n for n in get_args(ProbabilityType)}
SYMMETRIES: dict[str, Symmetries] = {name: name for name in get_args(Symmetries)}


ANSWERS = (".parquet", ".csv")
"""Endings of tables of what is said of whole images."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Storage:
    """What is stored of predictions; None takes what suits the task."""

    dtype: str | None = None
    """Of heights, or of probabilities."""

    interval: bool = True
    """Whether the ends of the interval become bands, where a model of heights has one."""

    probabilities: bool = False
    """Whether probabilities of classes become a file beside the map."""

    applicability: bool = False
    """Whether the distance from the training ground becomes a band of heights."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictJob(MapJob):
    """What ``geodino predict`` was asked."""

    symmetries: str = "none"
    interval: bool = True
    """Whether the ends of the interval become bands, where the model has one."""

    applicability: bool = False
    """Whether the distance from the training ground becomes a band."""

    probabilities: bool = False
    """Whether probabilities of classes become a file beside the map."""

    score: float | None = None
    """Least score of the objects of a table; None is what the model was made with."""

    @property
    def is_table(self) -> bool:
        """Whether ``out`` is a table, of objects or of images."""
        return self.out.suffix.lower() in {*FORMATS, *ANSWERS}

    @property
    def keeps_apart(self) -> bool:
        """Whether what is written holds several rasters, each by itself."""
        return self.is_folder or (self.is_table and self.mosaic is None)

    @property
    def storage(self) -> Storage:
        """What is stored."""
        # float32 is what all commands default to; classes are not stored in it.
        dtype = None if self.dtype == "float32" else self.dtype
        return Storage(
            dtype=dtype,
            interval=self.interval,
            probabilities=self.probabilities,
            applicability=self.applicability,
        )

    def check(self) -> None:
        """Refuse options that do not go together.

        Raises:
            RecipeError: what was asked, what can be, and what to change.
        """
        if not (self.is_table or self.out.suffix.lower() in ("", ".tif", ".tiff", ".zarr")):
            raise RecipeError(
                f"--out {self.out}: a map is written as FILE.tif or FILE.zarr, or as a folder of "
                f"GeoTIFFs (no ending); objects as FILE{' or FILE'.join(FORMATS)}; classes of whole "
                f"images as FILE{' or FILE'.join(ANSWERS)}."
            )
        known = {**HEIGHT_TYPES, **PROBABILITY_TYPES}
        if self.dtype not in known:
            raise RecipeError(f"--dtype {self.dtype}: choose {' or '.join(known)}.")
        check_symmetries(self.symmetries)
        self.check_shared()

    def command(self) -> str:
        """Return the command that repeats this job, whatever it was interrupted or shared by."""
        own = {
            "--dtype": None if self.is_table else self.dtype,
            "--symmetries": None if self.symmetries == "none" else self.symmetries,
            "--score": self.score,
        }
        flags = [] if self.interval else ["--no-interval"]
        flags += ["--applicability"] if self.applicability else []
        if self.probabilities:
            flags.append("--probabilities")
        return self.told("predict", own, flags)


def check_symmetries(word: str) -> None:
    """Refuse an unknown word.

    Raises:
        RecipeError: naming the known ones.
    """
    if word not in SYMMETRIES:
        raise RecipeError(f"--symmetries {word}: choose {' or '.join(SYMMETRIES)}.")
