"""``geodino finetune``: heads for tasks, on a backbone that stays as it is or learns with them.

The job is looked up when it is asked for: recipes of all kinds know the config of this one, and the
job knows recipes.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geodino.runs.finetune.job import FinetuneJob, finetune

__all__ = ["FinetuneJob", "finetune"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        from geodino.runs.finetune import job

        return getattr(job, name)
    raise AttributeError(f"module 'geodino.runs.finetune' has no attribute {name!r}")
