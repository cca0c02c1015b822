import re

import numpy as np
import pytest

from geodino.report.alarms import training_alarms
from geodino.report.content import Curve, Training


def training(**curves):
    return Training(
        curves=tuple(
            Curve(
                name=name.replace("__", "/"),
                steps=np.arange(len(values), dtype=np.float64) * 100,
                values=np.array(values, dtype=np.float64),
            )
            for name, values in curves.items()
        ),
        phases=(("pretrain", 0.0),),
    )


HEALTHY = {
    "loss__total": [7.0, 6.0, 5.0], "skipped": [0, 0, 0], "data_wait": [0.0, 0.01, 0.0],
    "health__patch_rank": [20.0, 30.0, 28.0], "health__patch_patch_cosine": [0.9, 0.5, 0.4],
    "health__cls_patch_cosine": [0.8, 0.4, 0.4], "health__outlier_share": [0.0, 0.01, 0.0],
}  # fmt: skip


def test_a_healthy_run_raises_none():
    assert training_alarms(training(**HEALTHY)) == []


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"skipped": [0, 1, 3]}, "3 steps had no finite gradient"),
        ({"loss__total": [5.0, 6.0, 7.0]}, "The loss did not fall: 5 .* 7 over the last"),
        ({"loss__dino": [5.0, np.nan, 4.0]}, "Not finite at some steps: loss/dino"),
        ({"data_wait": [0.5, 0.5, 0.2]}, "waited for data during 40.0 %"),
        ({"health__patch_rank": [20.0, 30.0, 12.0]}, "rank 12 at the end, 30 at best"),
        ({"health__patch_patch_cosine": [0.5, 0.5, 0.97]}, "look the same .*cosine 0.97"),
        ({"health__cls_patch_cosine": [0.5, 0.5, 0.95]}, "point where the class token points"),
        ({"health__outlier_share": [0.0, 0.0, 0.2]}, "outlying norms"),
    ],
)
def test_each_trouble_is_named_alone(change, said):

    alarms = training_alarms(training(**{**HEALTHY, **change}))
    assert len(alarms) == 1
    assert re.search(said, alarms[0])


def test_broken_and_missing_figures_are_no_reason_to_fail():
    broken = {name: [np.nan, np.nan] for name in HEALTHY}
    (alarm,) = training_alarms(training(**broken))
    assert alarm.startswith("Not finite at some steps")
    assert training_alarms(training()) == []
