import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from geodino.pretrain.phases import PhaseConfig, rates
from geodino.pretrain.schedules import ScheduleConfig, lr_factor


def curve(schedule: ScheduleConfig, total: int) -> list[float]:
    return [schedule.value(step, total) for step in range(total)]


def test_a_constant_schedule_warms_up_linearly_and_stays():
    schedule = ScheduleConfig(start=0.0, peak=1.0, warmup=4)
    assert curve(schedule, 7) == [0.0, 0.25, 0.5, 0.75, 1.0, 1.0, 1.0]


def test_a_cosine_reaches_both_of_its_ends():
    # Five values: cos of 0, 45, 90, 135, 180 degrees, mapped to [0, 1].
    schedule = ScheduleConfig(peak=1.0, end=0.0, cosine=5)
    half = 0.5**0.5
    assert curve(schedule, 6) == pytest.approx([1, (1 + half) / 2, 0.5, (1 - half) / 2, 0, 0])


@pytest.mark.parametrize("name", ["v2.0", "v2.1", "v2.2", "v2.3", "v2.4"])
def test_schedules_agree_with_the_reference(shared_golden, name):
    given = json.loads((shared_golden / "schedules_param_groups.json").read_text())[name]
    expected = load_file(shared_golden / "schedules_param_groups.safetensors")[name]
    schedule = ScheduleConfig(
        start=given["start"],
        peak=given["peak"],
        end=given["end"],
        warmup=given["warmup_iterations"],
        cosine=given.get("cosine_iterations"),
    )
    np.testing.assert_allclose(curve(schedule, len(expected)), expected, rtol=0, atol=1e-10)


@pytest.mark.parametrize("name", ["v1.0", "v1.2", "v1.3"])
def test_the_older_form_agrees_with_the_reference(shared_golden, name):
    given = json.loads((shared_golden / "schedules_param_groups.json").read_text())[name]
    expected = load_file(shared_golden / "schedules_param_groups.safetensors")[name]
    schedule = ScheduleConfig(
        start=given.get("start_warmup_value", 0.0),
        peak=given["base_value"],
        end=given["final_value"],
        warmup=given.get("warmup_iters", 0),
        form="dinov2",
    )
    np.testing.assert_allclose(curve(schedule, len(expected)), expected, rtol=0, atol=1e-10)


def test_the_published_7b_schedules_come_out_at_every_recorded_step(shared_golden):
    given = json.loads((shared_golden / "schedules_param_groups.json").read_text())
    given = given["dinov3_vit7b16_pretrain"]
    phase = PhaseConfig(
        steps=given["total"],
        lr=ScheduleConfig(peak=5e-5, warmup=100_000),
        momentum=ScheduleConfig(peak=0.994),
        teacher_temp=ScheduleConfig(start=0.04, peak=0.07, warmup=100_000),
        freeze_last_layer=5000,
    )
    for step in map(int, given["lr"]):
        now = rates(phase, step, batch=given["world"] * given["batch_per_gpu"])
        key = str(step)
        assert now.lr == pytest.approx(given["lr"][key], abs=1e-12)
        assert now.last_layer_lr == pytest.approx(given["last_layer_lr"][key], abs=1e-12)
        assert now.weight_decay == pytest.approx(given["wd"][key], abs=1e-12)
        assert now.momentum == pytest.approx(given["momentum"][key], abs=1e-12)
        assert now.teacher_temp == pytest.approx(given["teacher_temp"][key], abs=1e-12)


def test_learning_rates_follow_the_batch_by_the_named_rule():
    assert lr_factor("sqrt_1024", 4096) == 8.0
    assert lr_factor("linear_256", 64) == 0.25
    assert lr_factor("none", 64) == 1.0


def test_a_momentum_above_one_is_refused():
    with pytest.raises(ValueError, match="between 0 and 1"):
        PhaseConfig(steps=10, lr=ScheduleConfig(peak=1e-3), momentum=ScheduleConfig(peak=1.2))
