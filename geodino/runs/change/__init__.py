"""``geodino change``: how much the ground differs between two dates, by frozen features."""

from geodino.runs.change.job import ChangeJob
from geodino.runs.change.run import change

__all__ = ["ChangeJob", "change"]
