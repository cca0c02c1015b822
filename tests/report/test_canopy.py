"""The page of a run that learnt canopy heights: one way to draw, names escaped, gaps said."""

import re
from dataclasses import replace

import numpy as np

from geodino.metrics.coverage import CoverageReport, GroupCoverage
from geodino.metrics.height import HeightClassScores
from geodino.report.canopy import (
    CanopyReport,
    HeightPoints,
    KeptIntervals,
    render_canopy,
)
from geodino.report.content import Repeat
from geodino.report.maps import HeightCase, height_panels
from geodino.report.picture_table import Seen
from geodino.report.scores import ScoreRow

NAN = float("nan")

BARE = CanopyReport(
    name="a run",
    summary=("It learnt.",),
    figures=(("steps", "4"),),
    data=(("images", "somewhere"),),
    decisions=("heights are in m",),
    curves=(),
    columns=("MAE",),
    rows=(ScoreRow(name="height by greenness", cells=("1.00",), is_model=False),),
    rows_of="Of two sites.",
    differences=(),
    classes=(),
    sites=(),
    coverage=None,
    coverage_of="No interval: there is no calibration ground.",
    effects=(),
    cases=(),
    points=None,
    repeat=Repeat(commands=("geodino",), facts=(), versions=(), recipe="a: 1\n", license="None."),
)
CASE = HeightCase(
    name="site <b>",
    image=Seen(values=np.full((1, 20, 20), 50.0), low=np.zeros(1), high=np.full(1, 100.0)),
    predicted_m=np.full((10, 10), 12.0),
    true_m=np.full((10, 10), 10.0),
    valid=np.ones((10, 10), dtype=bool),
)


def texts(html):
    return re.findall(r"<text[^>]*>([^<]*)</text>", html)


def full():
    classes = (
        HeightClassScores(name="0-2m", pixels=950, mae_m=1.5, bias_predicted_minus_true_m=1.0),
        HeightClassScores(name="2m+", pixels=0, mae_m=NAN, bias_predicted_minus_true_m=NAN),
    )
    found = CoverageReport(
        coverage=0.75,
        width_m=6.0,
        sites=(
            GroupCoverage(name="kept", pixels=100, coverage=0.95, width_m=6.0),
            GroupCoverage(name="<b>", pixels=100, coverage=0.55, width_m=6.0),
        ),
        classes=(GroupCoverage(name="0-2m", pixels=200, coverage=0.75, width_m=6.0),),
    )
    return replace(
        BARE,
        classes=classes,
        coverage=KeptIntervals(promised=0.9, found=found),
        cases=(CASE,),
        points=HeightPoints(
            predicted_m=np.array([2.0, 4.0]), true_m=np.array([1.0, 5.0]), words="All 2 labels."
        ),
    )


def test_pictures_are_the_panels_of_maps():
    page = render_canopy(full())
    assert str(height_panels([CASE])) in page
    assert "site &lt;b&gt;: mean error +2.00 m, mean absolute 2.00 m" in page


def test_plots_say_errors_by_class_scores_of_points_and_what_intervals_kept():
    said = texts(render_canopy(full()))
    assert {"0-2 m", "950"} <= set(said)
    # Errors of +1 m and -1 m: both scores are 1 m.
    assert {"2 pixels", "MAE 1.00 m", "RMSE 1.00 m", "bias +0.00 m"} <= set(said)
    assert "95.0 % · 6.0 m wide · 100 pixels" in said
    assert "75.0 % · 6.0 m wide · 200 pixels" in said
    assert "&lt;b&gt;" in said


def test_what_could_not_be_measured_is_said_and_not_drawn():
    page = render_canopy(BARE)
    assert "<img" not in page
    assert "<svg" not in page
    assert "There are none: labels are footprints, or no site could be measured." in page
    assert "No interval: there is no calibration ground." in page


def test_the_same_report_gives_the_same_page():
    assert render_canopy(full()) == render_canopy(full())
