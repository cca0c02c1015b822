"""What a head is worth beside the answers that need no network."""

from collections.abc import Mapping
from typing import Any


def in_doubt(differences: Mapping[str, Mapping[str, Any]], *, is_error: bool = False) -> list[str]:
    """Return a sentence that names the floors a model is not clearly better than, if there are any.

    Args:
        differences: of the model's measure to that of each floor, with the ends ``low`` and
            ``high`` of an interval; None where there is none.
        is_error: whether less is better.
    """
    end, sign = ("high", -1) if is_error else ("low", 1)
    near = [name for name, row in differences.items() if not sign * (row[end] or 0.0) > 0]
    return [f"The model is not clearly better than: {', '.join(near)}."] if near else []
