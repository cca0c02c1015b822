"""What an inspection found: plain values, for people (text, page) and for programs (JSON)."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from geodino.files import finite

Topic = Literal[
    "kinds",
    "formats",
    "declared",
    "grid",
    "bands",
    "unit",
    "nodata",
    "offset",
    "crs",
    "gsd",
    "date",
]
"""What a question is about."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """Something that no file says and no pixel can prove."""

    topic: Topic
    """What it is about."""

    text: str
    """The question, in one sentence, with what was found."""

    why: str
    """What goes wrong while it is open."""

    descriptor: str = ""
    """Lines of a ``dataset.yaml`` that answer it; words in capitals are to be replaced."""

    option: str = ""
    """Options of the command line that answer it instead; or the command that mends the files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """How often values occur, in bins of equal width."""

    low: float
    """Where the first bin begins."""

    high: float
    """Where the last bin ends."""

    shares: tuple[float, ...]
    """Share of the values in each bin."""

    outside: float
    """Share of the values below ``low`` or above ``high``."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BandValues:
    """The valid values of one band, as stored."""

    valid_share: float
    """Share of the pixels read that are valid."""

    mean: float
    """Mean."""

    std: float
    """Standard deviation of the population."""

    low: float
    """Smallest value."""

    high: float
    """Largest value."""

    percentiles: Mapping[str, float]
    """1, 2, 5, 25, 50, 75, 95, 98 and 99 %."""

    histogram: Histogram
    """Values from the 0.5 to the 99.5 percentile."""

    saturated: float
    """Share of the values at the largest one, where they pile up there; 0 where they do not."""

    @property
    def is_constant(self) -> bool:
        """Whether there is one value only."""
        return self.low == self.high


@dataclass(frozen=True, kw_only=True, slots=True)
class BandFacts:
    """One band: what is declared about it, and what it holds."""

    name: str
    """As the file, the descriptor or the position calls it."""

    named_by: str
    """Where the name came from: ``description``, ``colour``, ``descriptor``, ``stac``,
    ``declared``, ``index``, or ``position`` where nothing tells it."""

    common_name: str | None
    """Name shared by sensors, as in STAC."""

    wavelength_nm: float | None
    """Centre wavelength, nanometres."""

    unit: str
    """Unit of ``stored * scale + offset``; ``unknown`` is asked for."""

    scale: float
    """``value = stored * scale + offset``."""

    offset: float
    """See ``scale``."""

    values: BandValues | None
    """Its valid values; None where none were read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Layout:
    """Files stored in blocks of one form."""

    text: str
    """``tiles of 512 x 512``."""

    files: int
    """How many."""

    cost: float
    """Pixels decoded for each pixel that is wanted, where windows of 1,024 px are read; the worst
    of these files."""

    remark: str = ""
    """What is bad about it; empty where it is good for windows."""

    mend: str = ""
    """The command that mends one of these files."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dates:
    """When the pictures were taken, as far as files say."""

    first: str | None
    """ISO 8601."""

    last: str | None
    """ISO 8601."""

    known_from: Mapping[str, int]
    """Where dates came from, and of how many tiles."""

    unknown: int
    """Tiles without a date."""

    per_year: Mapping[str, int]
    """Tiles of each year."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QualityFacts:
    """The provider's quality layer, in a sample of the scenes."""

    classes: Mapping[str, float]
    """Share of the pixels of each class; pixels may have several where classes are bits."""

    masked: tuple[str, ...]
    """Classes that make a pixel invalid."""

    scenes_read: int
    """Scenes looked at."""

    scenes_with: int
    """Scenes that have the layer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampled:
    """How much was read, and how much of that is valid."""

    pixels_read: int
    """Pixels read, valid or not."""

    pixels_of: int
    """Pixels there are."""

    seed: int
    """Which choice of windows was read, where not all were."""

    tiles_read: int
    """Tiles of which something was read."""

    valid_all: float
    """Share of pixels valid in all bands."""

    valid_any: float
    """Share of pixels valid in at least one band."""

    nearly_empty: tuple[str, ...]
    """Tiles whose pixels read are at most 5 % valid."""

    bands_read: int
    """Bands that were read, evenly spaced, where there are very many."""

    @property
    def is_complete(self) -> bool:
        """Whether every pixel was read."""
        return self.pixels_read == self.pixels_of


@dataclass(frozen=True, kw_only=True, slots=True)
class Ground:
    """How often ground is covered."""

    placed: int
    """Tiles with a place on the Earth."""

    covered_twice: float | None
    """Share of the ground that more than one tile covers, from 4,096 points; None without a
    place."""

    mean_cover: float | None
    """Tiles that cover a point of it, on average."""

    places_revisited: int
    """Grids that tiles of several dates share."""

    same_date: tuple[tuple[str, ...], ...]
    """Tiles of the same grid and the same date that are not copies of each other."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """Tiles that can be read as one source: the same number of bands of the same type."""

    name: str
    """``3 bands of uint8``."""

    tiles: int
    """Scenes, or files where each is a scene."""

    files: int
    """Files they consist of, without quality layers."""

    size_bytes: int
    """On disk; 0 for remote files."""

    example: str
    """Path of the first one."""

    select: str | None
    """A pattern that finds these files and no others of the source; None where none is needed,
    and empty where there is no simple one."""

    dtype: str
    """Stored type."""

    bands: tuple[BandFacts, ...]
    """In the order they are read."""

    crs: Mapping[str, int]
    """Coordinate reference systems and how many tiles have them; ``none`` for no CRS."""

    gsd_m: tuple[float, float] | None
    """Smallest and largest ground sampling distance, metres."""

    unplaced: int
    """Tiles without a place on the Earth."""

    sides: tuple[int, int, int, int]
    """Smallest and largest height, smallest and largest width, pixels."""

    pixels: int
    """Of all tiles."""

    drivers: Mapping[str, int]
    """GDAL's formats, and of how many files."""

    layouts: tuple[Layout, ...]
    """How files are stored, the most frequent first."""

    masks: Mapping[str, int]
    """Masks beside the pixels (mask files, alpha bands), and of how many files."""

    nodata: Mapping[str, int]
    """Nodata tags, and of how many files."""

    validity: str
    """What makes a pixel invalid, of all that occurs in these files."""

    decisions: tuple[str, ...]
    """What was decided from evidence, as sentences."""

    dates: Dates
    """Times."""

    ground: Ground
    """Overlaps."""

    sampled: Sampled | None
    """What was read; None where no pixel could be."""

    quality: QualityFacts | None
    """The quality layer, if there is one."""

    observations: tuple[str, ...]
    """What the numbers look like; never used for anything."""

    questions: tuple[Question, ...]
    """What has to be declared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Inspection:
    """What a source holds."""

    source: str
    """What the user called it."""

    root: str
    """The folder its files lie in."""

    reading: tuple[str, ...]
    """How files were read as scenes, as sentences."""

    files: int
    """Rasters opened, quality layers included."""

    scenes: int
    """Scenes they make."""

    others: Mapping[str, int]
    """Files of a folder that are no rasters by their ending, and how many; sidecars apart."""

    size_bytes: int
    """On disk, of those that can be read."""

    unreadable: tuple[tuple[str, str], ...]
    """Files and scenes that cannot be used: (path, reason)."""

    duplicates: tuple[tuple[str, ...], ...]
    """Files of the same size and content (hash of their first, middle and last 64 KiB)."""

    apart: str | None
    """Why the files cannot be one source; None where they can."""

    kinds: tuple[Kind, ...]
    """The kinds of tiles, the most frequent first."""

    questions: tuple[Question, ...]
    """What has to be declared about the source as a whole."""

    @property
    def all_questions(self) -> tuple[Question, ...]:
        """Those of the source, then those of its kinds."""
        return (*self.questions, *(q for kind in self.kinds for q in kind.questions))

    def to_json(self) -> dict[str, Any]:
        """Return everything as values that JSON knows; numbers that are not finite become null."""
        found: dict[str, Any] = finite(asdict(self))
        return found
