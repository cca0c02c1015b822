"""What ``geodino evaluate`` was asked."""

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class EvaluateJob:
    """A model, a suite, and how the one is measured on the other."""

    model: str
    suite: str
    """``mini``, ``geobench-v1[/SET]``, ``geobench-v2[/SET]``, ``torchgeo/SET``, or a folder."""

    out: Path
    data: Path | None = None
    """Where the files of a named suite lie."""

    partition: str = "default"
    """Of sets of GEO-Bench v1: ``0.01x_train`` learns from a hundredth of the training images."""

    protocol: str = "geodino"
    bands: str | None = None
    """``model``, ``rgb``, ``all``, or names with commas; None: as the protocol says."""

    probes: tuple[str, ...] = ()
    """Empty: those of the protocol."""

    features: tuple[str, ...] = ()
    """Empty: those of the protocol."""

    by: tuple[str, ...] = ()
    """Traits that scores are grouped by: region, sensor, season."""

    image_size: int | None = None
    reference: Path | None = None
    """Table of published rows that the results are set beside."""

    cache: Path | None = None
    """Where features are kept; None: in ``out``."""

    tiles: Path | None = None
    """Index of the tiles the model was pretrained on; None: that of its run, if it has one."""

    batch: int | None = None
    resamples: int = 1000
    seed: int = 0
    seeds: int = 1
    """How many seeds probes that draw something are run with, ``seed`` the first one."""

    device: str = "auto"
    resume: bool = False
    dry_run: bool = False
    quiet: bool = False
