"""Plots of heights: numbers agree with the metrics, nothing is left out unsaid."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geodino.metrics.coverage import CoverageReport, GroupCoverage, IntervalSite, coverage_report
from geodino.metrics.height import HeightClassScores, HeightSums
from geodino.report.height_plots import (
    class_coverage_plot,
    class_error_plot,
    height_scatter,
    short_count,
    site_coverage_plot,
)

NAN = float("nan")


def texts(svg):
    return re.findall(r"<text[^>]*>([^<]*)</text>", svg)


def heights(seed=0, shape=(40, 60)):
    rng = np.random.default_rng(seed)
    true = rng.uniform(-0.5, 35, shape)
    return true + rng.normal(1, 3, shape), true, rng.random(shape) < 0.8


def scatter(*arrays, **more):
    return height_scatter(*arrays, label="A plot", **more)


def test_the_scores_in_the_scatter_are_those_of_the_metrics():
    predicted, true, valid = heights()
    scores = HeightSums.of(predicted, true, valid, gsd_m=1.0).scores()
    found = texts(scatter(predicted, true, valid))
    assert f"MAE {scores.mae_m:.2f} m" in found
    assert f"RMSE {scores.rmse_m:.2f} m" in found
    assert f"bias {scores.bias_predicted_minus_true_m:+.2f} m" in found
    assert f"R² {scores.r2:.2f}" in found
    assert f"{short_count(scores.pixels)} pixels" in found


def test_every_hexagon_has_the_colour_of_the_page_and_more_pixels_are_more_opaque():
    # 1 pixel at (5, 5), 100 at (20, 10), 10 000 at (30, 30): log counts 0, 1/2 and 1.
    true = np.repeat([5.0, 20.0, 30.0], [1, 100, 10_000])
    predicted = np.repeat([5.0, 10.0, 30.0], [1, 100, 10_000])
    svg = scatter(predicted, true, np.ones(true.shape, dtype=bool))
    faint = [float(o) for o in re.findall(r"fill: var\(--accent\); fill-opacity: ([\d.]+)", svg)]
    assert sorted(faint) == pytest.approx([0.12, 0.56], abs=0.01)
    assert svg.count("fill: var(--accent)") == 3  # the third is opaque


def test_what_lies_under_invalid_pixels_changes_no_character():
    predicted, true, valid = heights()
    plain = scatter(predicted, true, valid)
    assert scatter(predicted, np.where(valid, true, -9999.0), valid) == plain
    assert scatter(np.where(valid, predicted, NAN), true, valid) == plain


def test_the_axes_are_equal_and_tall_outliers_lie_at_their_ends():
    predicted, true, valid = heights()
    true[0, 0], valid[0, 0] = 300.0, True
    ticks = [t for t in texts(scatter(predicted, true, valid)) if t.isdigit()]
    assert ticks.count("40") == 2
    assert "300" not in ticks


def test_a_valid_pixel_without_a_height_is_refused():
    predicted, true, valid = heights()
    predicted[valid] = NAN
    with pytest.raises(ValueError, match="have no predicted height"):
        scatter(predicted, true, valid)


def test_no_pixel_and_no_spread_are_said():
    one = np.ones((2, 2))
    assert "no pixel" in texts(scatter(one, one, one < 0))
    assert "R² –" in texts(scatter(one, one, one > 0))


def score(name, pixels, mae=1.0, bias=-0.5):
    return HeightClassScores(name=name, pixels=pixels, mae_m=mae, bias_predicted_minus_true_m=bias)


def test_every_class_is_named_and_counted_the_empty_ones_too():
    classes = [score("0-2m", 950), score("2-5m", 12_345), score("5m+", 0, NAN, NAN)]
    found = texts(class_error_plot(classes, label="errors"))
    for text in ("0-2 m", "2-5 m", "5 m+", "950", "12 k", "0"):
        assert text in found


def test_bars_are_errors_and_dots_are_biases():
    svg = class_error_plot([score("0-2m", 9, 2.0, -2.0), score("2m+", 9, 1.0, 0.0)], label="x")
    assert "var(--accent)" in svg
    assert "var(--second)" in svg
    assert 'aria-label="x"' in svg


def group(name, coverage, pixels=1000, width=4.0):
    return GroupCoverage(name=name, pixels=pixels, coverage=coverage, width_m=width)


def report(sites, classes=()):
    return CoverageReport(coverage=0.9, width_m=4.0, sites=tuple(sites), classes=tuple(classes))


def places(svg, names):
    """Heights on the page of the texts that are names."""
    found = re.findall(r'<text[^>]*?y="([\d.-]+)"[^>]*>([^<]*)</text>', svg)
    return [next(float(y) for y, text in found if text == name) for name in names]


def test_the_least_covered_site_is_on_top_and_many_sites_are_cut_to_those():
    sites = [group(f"site {i:02d}", 0.5 + i / 200) for i in range(40)][::-1]
    svg = site_coverage_plot(report(sites), promised=0.9, label="sites")
    found = [t for t in texts(svg) if t.startswith("site")]
    assert set(found) == {f"site {i:02d}" for i in range(30)}
    tops = places(svg, ["site 00", "site 10", "site 29"])
    assert tops == sorted(tops)  # y grows downwards


def test_classes_stand_in_their_order_with_width_and_count():
    classes = [group("0-2m", 0.95), group("2-5m", 0.8, 12_345, 6.25), group("5m+", NAN, 0, NAN)]
    svg = class_coverage_plot(report([group("s", 0.9)], classes), promised=0.9, label="classes")
    tops = places(svg, ["0-2 m", "2-5 m", "5 m+"])
    assert tops == sorted(tops)
    assert "80.0 % · 6.2 m wide · 12 k pixels" in texts(svg)
    assert "no pixel" in texts(svg)
    assert "var(--second)" in svg  # the promise


def test_reports_of_real_counts_are_drawn():
    predicted, true, valid = heights()
    site = IntervalSite(
        name="<site> & co", predicted_m=predicted, lower_m=predicted - 4, upper_m=predicted + 4,
        true_m=true, valid=valid,
    )  # fmt: skip
    found = coverage_report([site])
    for plot in (class_coverage_plot, site_coverage_plot):
        assert "</svg>" in plot(found, promised=0.9, label="x")
    assert "&lt;site&gt; &amp; co" in site_coverage_plot(found, promised=0.9, label="x")


@pytest.mark.parametrize(
    ("pixels", "text"),
    [
        (0, "0"), (999, "999"), (1000, "1.0 k"), (9_949, "9.9 k"), (12_345, "12 k"),
        (999_499, "999 k"), (999_500, "1.0 M"), (3_400_000, "3.4 M"), (5 * 10**12, "5,000 G"),
    ],
)  # fmt: skip
def test_counts_take_few_characters(pixels, text):
    assert short_count(pixels) == text


@given(pixels=st.integers(0, 10**12))
def test_counts_are_right_to_the_digits_shown(pixels):
    value, *unit = short_count(pixels).replace(",", "").split(" ")
    power = 1000 ** " kMG".index(unit[0]) if unit else 1
    assert float(value) * power == pytest.approx(pixels, rel=0.05)
