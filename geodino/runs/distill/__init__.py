"""``geodino distill``: one teacher, several students, one pass of the teacher."""

from geodino.runs.distill.job import DistillJob, distill

__all__ = ["DistillJob", "distill"]
