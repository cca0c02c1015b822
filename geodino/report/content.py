"""What a report says: plain values, collected by whoever knows the run, laid out by ``page``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int, UInt8
from numpy import ndarray

Pairs = tuple[tuple[str, str], ...]
"""Names with what is to be said of them, in order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Picture:
    """An image for people; invalid pixels are hatched already."""

    rgb: UInt8[ndarray, "h w 3"]
    alt: str
    """What it shows, for those who cannot see it."""

    caption: str = ""
    """A few words below it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Head:
    """What a reader must know, whatever else is read."""

    name: str
    """Of the run."""

    summary: tuple[str, ...]
    """What was trained, on what, when, how long, with which result, in sentences."""

    alarms: tuple[str, ...]
    """What a reader must be told before any result, in sentences."""

    figures: Pairs
    """The few numbers that say most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where tiles lie."""

    outlines: tuple[Float[ndarray, "n 2"], ...]
    """Longitude and latitude of the corners of each part of a footprint, degrees."""

    tiles: int
    """Tiles that have a place on the Earth, of those looked at."""

    without: int
    """Tiles that have none."""

    every: int = 1
    """How many tiles stand behind one that was looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BandRow:
    """One band and its statistics over valid pixels."""

    name: str
    meaning: str
    """Common name, wavelength, unit, scale and offset, as far as they are declared."""
    mean: float
    std: float
    low: float
    high: float
    valid_share: float | None
    """Share of the pixels read that are valid in this band."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Histogram:
    """How often values of a band occur among the valid pixels of a sample."""

    band: str
    edges: Float[ndarray, " n1"]
    counts: Int[ndarray, " n"]
    beyond: float
    """Share of the values outside the edges."""
    mean: float
    """Mean of the whole source, marked in the plot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Sample:
    """One chip, and the crops that training made of it."""

    chip: Picture
    crops: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Data:
    """What the model learnt from."""

    facts: Pairs
    place: Place
    bands: tuple[BandRow, ...]
    histograms: tuple[Histogram, ...]
    histograms_of: str
    """What the histograms are of, or why there are none; a sentence."""
    samples: tuple[Sample, ...]
    samples_of: str
    """How the samples were made, or why there are none; a sentence or two."""
    decisions: tuple[str, ...]
    unusable: Pairs
    """Files that could not be used, with the reason."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Curve:
    """One scalar over the steps of a run."""

    name: str
    """As in metrics.jsonl."""
    steps: Float[ndarray, " n"]
    values: Float[ndarray, " n"]
    """NaN where the value was not finite."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    """What happened while it learnt."""

    curves: tuple[Curve, ...]
    phases: tuple[tuple[str, float], ...]
    """Phases with the step each began at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Probes:
    """The probe tiles and their patch tokens at a few steps."""

    pictures: tuple[Picture, ...]
    valid: Bool[ndarray, "n s s"]
    steps: tuple[int, ...]
    patches: tuple[Float[ndarray, "n d h w"], ...]
    """One entry per step."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Neighbours:
    """A chip, and the chips of the source whose features are nearest to its own."""

    query: Picture
    nearest: tuple[Picture, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Features:
    """What the features look like."""

    probes: Probes | None
    probes_missing: str
    """Why there are none; empty where there are some."""
    neighbours: tuple[Neighbours, ...]
    neighbours_of: str
    """How they were searched, or why there are none; a sentence or two."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """One probe on one encoder's features."""

    encoder: str
    method: str
    features: str
    value: float
    low: float
    high: float
    is_model: bool
    """Whether the encoder is the model under evaluation, not a floor."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Evaluation:
    """The result of one evaluation found in the run folder."""

    title: str
    """Suite and where the results lie."""
    metric: str
    """What the scores are."""
    protocol: str
    """Split, numbers of images and classes, interval; a sentence."""
    scores: tuple[Score, ...]
    verdicts: Pairs
    """The model against each floor."""
    alarms: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """What another person needs to do it again."""

    commands: tuple[str, ...]
    facts: Pairs
    versions: Pairs
    recipe: str
    """The complete configuration, YAML."""
    license: str
    """Licence and lineage of the weights, in sentences."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """Everything a page says."""

    head: Head
    data: Data
    training: Training
    features: Features
    evaluations: tuple[Evaluation, ...]
    evaluate_with: str
    """The command that would measure the model."""
    repeat: Repeat


Row = Mapping[str, Any]
"""A line of metrics.jsonl."""
