"""The page of an evaluation: every set with the model beside its floors, and what to mind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from geodino.evals.results import CONSTANT, MODEL
from geodino.evals.tables import best_rows
from geodino.metrics.bootstrap import Interval
from geodino.report.content import Evaluation, Pairs, Score
from geodino.report.plots import score_plot
from geodino.report.render import rendered

_CLASSES = 60
"""Classes in a table, at most."""

_BLIND = "no image"
"""Column of the floor that answers without one."""

_IN_WORDS = {
    "accuracy": "accuracy",
    "micro_f1": "micro-F1",
    "micro_map": "micro-mAP",
    "miou": "mean IoU",
    "rmse": "root mean squared error (lower is better)",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class SuiteRow:
    """A line of the table of all sets."""

    name: str
    kind: str
    metric: str
    cells: tuple[str, ...]
    """Of the model and each floor, as text."""

    verdict: str
    """How the model's best stands to its floors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Classes:
    """What each class scores."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    """One set."""

    name: str
    evaluation: Evaluation
    metric: str
    classes: Classes | None
    groups: tuple[tuple[str, Pairs], ...]
    """By trait: the score of each group, the worst one named first."""

    about: Pairs


@dataclass(frozen=True, kw_only=True, slots=True)
class EvaluationPage:
    """Everything the page says."""

    name: str
    summary: tuple[str, ...]
    figures: Pairs
    encoders: tuple[str, ...]
    rows: tuple[SuiteRow, ...]
    overall: Pairs
    """By encoder: the interquartile mean over sets and seeds; empty for a single set."""

    missing: Pairs
    alarms: tuple[str, ...]
    sections: tuple[Section, ...]
    reference: tuple[str, tuple[tuple[str, str, str, str, bool], ...]] | None
    """Where published rows come from, and the lines: set, metric, name, score, whether ours."""

    standings: tuple[tuple[str, tuple[tuple[str, str, bool], ...]], ...]
    """By probe: what the numbers are, and the models in their order: name, score, whether ours."""

    commands: tuple[str, ...]
    facts: Pairs


def render_evaluation(page: EvaluationPage) -> str:
    """Return the whole page; the same content gives the same text."""
    return rendered(
        "evaluation.html.j2",
        page=page,
        plots=[
            score_plot(
                section.evaluation.scores,
                label=f"{section.metric} and interval of every probe, {section.name}",
            )
            for section in page.sections
        ],
    )


def evaluation_of(result: Mapping[str, Any], *, title: str) -> Evaluation:
    """Return what pages show of the result of a set, in its own metric."""
    about, settings = result["set"], result["settings"]
    metric = about["metric"]
    counted = ", ".join(
        f"{about[f'n_{part}']:,} {part}" for part in ("train", "val", "test") if about[f"n_{part}"]
    )
    classes = f"{len(about['classes'])} classes; " if about["classes"] else ""
    return Evaluation(
        title=title,
        metric=in_words(metric),
        protocol=(
            f"{classes}images: {counted}. Protocol {settings['protocol']}; bands "
            f"{', '.join(about['bands'])}, {settings['values_in_words']}. Features are frozen."
        ),
        scores=tuple(
            Score(
                encoder=row["encoder"],
                method=row["method"],
                features=row["features"],
                value=row["metric_value"],
                low=row["metric_value"] if row["ci_lower"] is None else row["ci_lower"],
                high=row["metric_value"] if row["ci_upper"] is None else row["ci_upper"],
                is_model=row["encoder"] == MODEL,
            )
            for row in result["rows"]
            if row["metric_name"] == metric and row["metric_value"] is not None
        ),
        verdicts=tuple(
            (f"{c['method']} on {c['features']}", _verdict(c)) for c in result["comparisons"]
        ),
        alarms=tuple(result["alarms"]),
    )


def section_of(result: Mapping[str, Any]) -> Section:
    """Return what the page says of one set."""
    about, settings = result["set"], result["settings"]
    pairs = [
        ("kind", about["kind"]),
        ("values", settings["values_in_words"]),
        ("image sizes", ", ".join(f"{h} x {w}" for h, w in about["sizes"])),
        ("fingerprint", about["fingerprint"]),
        ("seen while pretraining", settings.get("leakage", "not checked")),
    ]
    if settings["adapted"]:
        pairs.append(("adapted", settings["adapted"]))
    if about["source"]:
        pairs.append(("source", about["source"]))
    pairs += [("note", note) for note in about["notes"]]
    return Section(
        name=about["name"],
        evaluation=evaluation_of(result, title=about["name"]),
        metric=in_words(about["metric"]),
        classes=_classes(result),
        groups=tuple(_groups(result)),
        about=tuple(pairs),
    )


def between(score: Interval) -> str:
    """Return a score with its interval, where it has any width."""
    if score.low == score.high:
        return f"{score.value:.3f}"
    return f"{score.value:.3f} ({score.low:.3f}–{score.high:.3f})"


def in_words(metric: str) -> str:
    """Return the name of a score as people say it."""
    return _IN_WORDS.get(metric, metric)


def _verdict(comparison: Mapping[str, Any]) -> str:
    low, high = comparison["low"], comparison["high"]
    between = "undefined" if low is None else f"{low:+.3f} to {high:+.3f}"
    return (
        f"{comparison['verdict']} {comparison['floor']}: {_number(comparison['model'])} against "
        f"{_number(comparison['floor_score'])}, difference {between}"
    )


def _classes(result: Mapping[str, Any]) -> Classes | None:
    """The score of each class, of the model's outcomes side by side."""
    mine = [o for o in result["per_class"] if o["encoder"] == MODEL]
    names = {"recall": "recall", "iou": "IoU", "f1": "F1"}
    key = next((name for name in names if mine and name in mine[0]), None)
    if key is None or len(result["set"]["classes"]) > _CLASSES:
        return None
    return Classes(
        caption=f"{names[key]} of each class",
        columns=tuple(f"{o['method']} · {o['features']}" for o in mine),
        rows=tuple(
            (name, *(_number(o[key][name]) for o in mine)) for name in result["set"]["classes"]
        ),
    )


def _groups(result: Mapping[str, Any]) -> list[tuple[str, Pairs]]:
    found = []
    for trait, outcomes in result["groups"].items():
        for one in outcomes:
            scores = sorted(one["scores"].items(), key=lambda item: item[0] != one["worst"])
            pairs = tuple(
                (
                    f"{name or 'unnamed'}{' (worst)' if name == one['worst'] else ''}",
                    f"{_number(value)} on {one['images'][name]:,} images",
                )
                for name, value in scores
            )
            found.append((f"By {trait}: {one['method']} on {one['features']}", pairs))
    return found


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.3f}"


def suite_rows(
    results: Sequence[Mapping[str, Any]],
) -> tuple[tuple[str, ...], tuple[SuiteRow, ...]]:
    """Return the columns of the table of all sets and, for each set, the best score of each.

    What needs no image has another name for each kind of set, and one column.
    """
    columns = list(dict.fromkeys(_column(row) for result in results for row in result["rows"]))
    columns.sort(key=lambda name: (name == _BLIND) - (name == MODEL))
    return tuple(columns), tuple(_suite_row(result, columns) for result in results)


def _column(row: Mapping[str, Any]) -> str:
    return _BLIND if row["method"] == CONSTANT else row["encoder"]


def _suite_row(result: Mapping[str, Any], columns: Sequence[str]) -> SuiteRow:
    metric = result["set"]["metric"]
    rows = [row for row in result["rows"] if row["metric_name"] == metric]
    best = {_column(row): row for row in best_rows(rows).values()}
    cells = [_cell(best.get(column)) for column in columns]
    verdicts = [c["verdict"] for c in result["comparisons"]]
    above = sum(v == "above" for v in verdicts)
    return SuiteRow(
        name=result["set"]["name"],
        kind=result["set"]["kind"],
        metric=in_words(metric),
        cells=tuple(cells),
        verdict=f"above in {above} of {len(verdicts)}",
    )


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None or row["metric_value"] is None:
        return "–"
    value, low, high = row["metric_value"], row["ci_lower"], row["ci_upper"]
    if low is None or high is None:
        return f"{value:.3f}"
    return f"{value:.3f} ({low:.3f}–{high:.3f})"
