"""Results of canopy heights as lines for people."""

from geodino.runs.finetune.canopy.judge import MEAN
from geodino.runs.finetune.canopy.results import Results
from geodino.runs.finetune.floors import in_doubt


def in_words(results: Results) -> list[str]:
    """Return the results as lines for people."""
    facts, lines = results.facts, []
    on = facts["reported_on"]
    if on:
        found = facts[on]
        what = f"{found['sites']} {on} sites, {found['pixels']:,} labels"
        for name, scores in found["scores"].items():
            mae, bias = scores["mae_m"], scores["bias_predicted_minus_true_m"]
            between = "" if mae["low"] is None else f" ({mae['low']:.2f} to {mae['high']:.2f})"
            r2 = scores["r2"]["value"]
            shown = "" if r2 is None or name == MEAN else f", R2 {r2:.2f}"
            nmae, iou = scores["nmae"]["value"], scores["tree_cover_iou"]["value"]
            if nmae is not None and iou is not None:
                shown += f", nMAE {nmae:.1%}, tree cover IoU {iou:.1%}"
            lines.append(
                f"{name}: MAE {mae['value']:.2f} m{between}, bias {bias['value']:+.2f} m{shown} on {what}"
            )
        minus = {name: row["mae_m"] for name, row in found["model_minus"].items()}
        lines += in_doubt(minus, is_error=True)
        if facts["scored"]:
            lines.append(facts["scored"].strip())
        if on != "test":
            lines.append(f"There is no labelled test ground: what is reported is of {on} ground.")
    coverage = facts["coverage"]
    if coverage is not None:
        lines.append(
            f"Intervals of {facts['intervals']['coverage']:.0%} cover {coverage['coverage']:.0%} of "
            f"the test sites' pixels on average; mean width {coverage['width_m']:.1f} m."
        )
    elif facts["intervals_missing"]:
        lines.append(facts["intervals_missing"])
    return lines
