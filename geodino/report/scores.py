"""Scores in tables: each as text with its interval, the model beside its floors."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from geodino.evals.results import MODEL

Scored = Mapping[str, float | None]
"""``value``, ``low`` and ``high`` of an interval; None where one is not known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreRow:
    """One line of the table of results, each score as text with its interval."""

    name: str
    cells: tuple[str, ...]
    is_model: bool


def figure(value: float | None, *, decimals: int = 3) -> str:
    """Return a score as text."""
    return "none" if value is None else f"{value:.{decimals}f}"


def with_interval(score: Scored, *, decimals: int = 3) -> str:
    """Return a score as text, with its interval where it has one."""
    value, low, high = score["value"], score["low"], score["high"]
    text = figure(value, decimals=decimals)
    if value is None or low is None or high is None:
        return text
    return f"{text} ({low:.{decimals}f} to {high:.{decimals}f})"


def score_rows(
    scores: Mapping[str, Mapping[str, Scored]], columns: Iterable[str], *, decimals: int = 3
) -> tuple[ScoreRow, ...]:
    """Return a row for the model and for each floor.

    Args:
        scores: by name of the model or floor and name of the score.
        columns: which scores.
        decimals: digits after the point.
    """
    columns = tuple(columns)
    return tuple(
        ScoreRow(
            name=name,
            cells=tuple(with_interval(found[key], decimals=decimals) for key in columns),
            is_model=name == MODEL,
        )
        for name, found in scores.items()
    )
