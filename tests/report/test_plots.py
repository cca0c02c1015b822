import re

import matplotlib as mpl
import numpy as np
import pytest

from geodino.report.content import Curve, Histogram, Score
from geodino.report.plots import curve_plot, histogram_plot, score_plot


def line(n=50, *, scale=1.0, name="loss/total"):
    steps = np.arange(n, dtype=np.float64)
    return Curve(name=name, steps=steps, values=scale * (8.0 - np.log1p(steps)))


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def histogram(**more):
    values = {
        "band": "red", "edges": np.linspace(0, 256, 65), "counts": np.arange(64), "beyond": 0.0,
        "mean": 100.0,
    }  # fmt: skip
    return Histogram(**{**values, **more})


def score(encoder, value):
    return Score(
        encoder=encoder, method="knn5", features="cls", value=value, low=value - 0.1,
        high=value + 0.1, is_model=encoder == "model",
    )  # fmt: skip


@pytest.fixture(params=["curve", "histogram", "scores"])
def plot(request):
    if request.param == "curve":
        return curve_plot(line(), label="A plot", log=False)
    if request.param == "histogram":
        return histogram_plot(histogram(), label="A plot")
    return score_plot([score("model", 0.7), score("random weights", 0.5)], label="A plot")


def test_a_plot_is_one_labelled_element_in_the_pages_own_colours(plot):
    assert plot.startswith("<svg ")
    assert plot.rstrip().endswith("</svg>")
    assert 'role="img" aria-label="A plot"' in plot
    assert "var(--accent)" in plot
    assert re.findall(r"#0[0-9]0[0-9]0[0-9]\b", plot) == []


def test_a_plot_changes_nothing_outside_itself(plot):
    for forbidden in (
        "<style",
        "<script",
        "<!--",
        "<metadata",
        "font-family",
        "http://www.w3.org/2",
    ):
        assert forbidden not in plot
    assert not re.search(r"<svg[^>]* (width|height)=", plot)


def test_the_same_values_give_the_same_characters_whatever_the_users_settings():
    first = curve_plot(line(), label="x", log=False)
    with mpl.rc_context({"axes.facecolor": "red", "font.size": 30, "svg.fonttype": "path"}):
        assert curve_plot(line(), label="x", log=False) == first
        assert mpl.rcParams["font.size"] == 30  # and the user's are left alone


def test_names_inside_two_plots_differ():
    one, two = (
        set(re.findall(r'\sid="([^"]+)"', curve_plot(line(), label=label, log=False)))
        for label in ("one", "two")
    )
    assert one
    assert not one & two


def test_long_curves_become_short_and_keep_their_range():
    noisy = line(20_000)
    noisy.values[777] = 40.0
    svg = curve_plot(noisy, label="x", log=False)
    assert len(svg) < 40_000
    assert "40" in texts(svg)  # the axis reaches the one high value


def test_labels_of_ticks_are_written_in_full():
    svg = curve_plot(
        Curve(name="x", steps=np.arange(3.0), values=np.array([0.8850, 0.8860, 0.8871])),
        label="x", log=False,
    )  # fmt: skip
    labels = [t for t in texts(svg) if t.startswith("0.8")]
    assert len(labels) == len(set(labels)) > 1
    assert "0.886" in labels


def test_a_curve_over_many_decades_gets_a_logarithmic_axis():
    steep = Curve(name="x", steps=np.arange(6.0), values=10.0 ** np.arange(0, -6, -1))
    assert {"1", "0.01"} <= set(texts(curve_plot(steep, label="x", log=True)))
    flat = Curve(name="x", steps=np.arange(3.0), values=np.array([1.0, 2.0, 1.5]))
    assert curve_plot(flat, label="x", log=True) == curve_plot(flat, label="x", log=False)


@pytest.mark.parametrize("values", [[], [np.nan], [np.nan, 1.0], [3.0], [0.0, 0.0], [1e-9, 1e9]])
def test_strange_curves_are_drawn_all_the_same(values):
    strange = Curve(
        name="x", steps=np.arange(len(values), dtype=np.float64), values=np.array(values)
    )
    assert "</svg>" in curve_plot(strange, label="x", log=True)


def test_where_a_phase_begins_there_is_a_dashed_line():
    phases = (("pretrain", 0.0), ("gram", 30.0))
    plain, marked = (
        curve_plot(line(), label="x", log=False, phases=p) for p in (phases[:1], phases)
    )
    assert plain.count("stroke-dasharray") == 0
    assert marked.count("stroke-dasharray") == 1


def test_an_empty_histogram_is_drawn_all_the_same():
    assert "</svg>" in histogram_plot(histogram(counts=np.zeros(64, dtype=np.int64)), label="x")


def test_any_name_can_be_written_and_none_becomes_markup():
    svg = score_plot([score("<b>$x_1$&", 0.5)], label='a "label" <i>')
    assert "&lt;b&gt;$x_1$&amp; · knn5 · cls" in svg
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert "&#34;label&#34;" in svg


def test_scores_stand_best_first_and_only_the_model_in_colour():
    svg = score_plot([score("random weights", 0.5), score("model", 0.7)], label="x")
    places = {
        name: float(y)
        for y, name in re.findall(r'<text[^>]*y="([\d.]+)"[^>]*>(model|random weights) ·', svg)
    }
    assert places["model"] < places["random weights"]  # higher on the page
