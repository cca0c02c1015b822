"""A source in a mix, as an index remembers it."""

from geodino.config import Config
from geodino.geo.validity import ReadRule


class Member(Config):
    """One of several sources that a run learns from."""

    name: str
    """What the mix calls it."""

    tiles: str
    """Its folder, file or pattern, absolute."""

    root: str
    """The folder that its paths are relative to in the fingerprint."""

    weight: float
    """Share of the samples of mixed steps, relative to the other members."""

    homogeneous: bool = False
    """Whether whole batches may come from it alone."""

    rule: ReadRule
    """How its files are read."""
