"""What a function was given, as the words that the command line takes."""

from collections.abc import Mapping
from typing import Any


def assignments(overrides: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Return ``{"train.batch": 32}`` as ``("train.batch=32",)``, as ``--set`` takes it."""
    return tuple(f"{key}={value}" for key, value in (overrides or {}).items())
