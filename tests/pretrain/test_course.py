"""The course of a run: samples follow each other without gap, whatever the sizes and the ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino.data.views_config import CropSizes
from geodino.pretrain.course import Choice, Course, same_memory_batch
from geodino.pretrain.phases import PhaseConfig, SizesConfig

LR = {"peak": 1e-3}


def course(lengths, batches=((4,), (8, 12), (2,)), seed=0):
    phases = tuple(
        (f"p{i}", PhaseConfig.model_validate({"steps": n, "lr": LR})) for i, n in enumerate(lengths)
    )
    choices = tuple(
        tuple(
            Choice(sizes=CropSizes(globals=32 * (i + 1), locals=16), batch=b, share=1.0 + i)
            for i, b in enumerate(of)
        )
        for of in batches[: len(lengths)]
    )
    return Course(phases=phases, choices=choices, seed=seed)


@settings(max_examples=15)
@given(lengths=st.lists(st.integers(1, 1500), min_size=1, max_size=3), seed=st.integers(0, 99))
def test_every_sample_belongs_to_one_step(lengths, seed):
    of = course(lengths, seed=seed)
    number, step = 0, 0
    for phase, length in enumerate(lengths):
        steps = of.phase(phase)
        assert steps.start == step
        for _ in range(length):
            first, count = steps.span(step)
            assert (first, count) == (number, steps.choice(step).batch)
            assert of.number_at(step) == phase
            number, step = number + count, step + 1
    assert of.steps == step


def test_any_step_can_be_asked_first():
    fresh, used = course([5000], ((8, 12),)).phase(0), course([5000], ((8, 12),)).phase(0)
    wanted = [used.span(step) for step in range(5000)][4321]
    assert fresh.span(4321) == wanted


def test_sizes_are_drawn_by_their_share():
    steps = course([6000], ((8, 12, 4),)).phase(0)
    drawn = [steps.choice(step).batch for step in range(6000)]
    # Shares 1, 2 and 3: expected counts 1000, 2000, 3000, standard deviation below 39.
    for batch, wanted in ((8, 1000), (12, 2000), (4, 3000)):
        assert abs(drawn.count(batch) - wanted) < 160


def test_a_phase_that_ends_early_brings_the_later_ones_forward():
    of = course([10, 6, 4])
    of.end_at(0, 7)
    assert (of.ends, of.steps) == ([7, 13, 17], 17)
    assert of.phase(1).start == 7
    assert of.phase(1).first_sample == 7 * 4
    assert [of.number_at(step) for step in (6, 7, 12, 13, 16)] == [0, 1, 1, 2, 2]


def test_memory_is_held_by_the_number_of_pixels():
    small = SizesConfig(global_size=256, local_size=112)
    large = SizesConfig(global_size=512, local_size=112)
    # 2 x 256^2 + 8 x 112^2 = 231,424 pixels against 624,640: 64 samples become 23, in groups 16.
    for unit, wanted in ((1, 23), (16, 16), (32, 32)):
        got = same_memory_batch((large, 8), like=(small, 8), batch=64, unit=unit)
        assert got == wanted
    assert same_memory_batch((small, 8), like=(small, 8), batch=64, unit=16) == 64


@pytest.mark.parametrize(
    ("every", "most", "wanted"), [(0, 3, []), (5, 3, [5, 10, 15]), (5, 1, [5])]
)
def test_the_gram_teacher_is_refreshed_at_multiples_at_most_so_often(every, most, wanted):
    from geodino.pretrain.gram import GramConfig

    gram = GramConfig(refresh_every=every, refresh_most=most)
    assert [step for step in range(40) if gram.refreshes_at(step)] == wanted
