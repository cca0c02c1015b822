import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from geodino import seeds


@settings(max_examples=60)
@given(size=st.integers(1, 3000), seed=st.integers(0, 2**40))
def test_a_permutation_sends_every_index_to_its_own_place(size, seed):
    assert sorted(seeds.permuted(np.arange(size), size, seed)) == list(range(size))


def test_a_part_of_a_permutation_is_the_same_as_the_whole_there():
    whole = seeds.permuted(np.arange(1000), 1000, 7, "epoch", 3)
    np.testing.assert_array_equal(
        seeds.permuted(np.array([999, 5, 17]), 1000, 7, "epoch", 3), whole[[999, 5, 17]]
    )


def test_two_keys_give_two_permutations_that_are_both_well_mixed():
    a = seeds.permuted(np.arange(4096), 4096, 0)
    b = seeds.permuted(np.arange(4096), 4096, 1)
    assert (a == b).sum() < 20
    # The correlation of a random permutation with its index has a deviation of 1/sqrt(n) = 0.016.
    assert abs(np.corrcoef(a, np.arange(4096))[0, 1]) < 0.08


def test_parts_of_a_key_do_not_run_into_each_other():
    keys = [(1, 23), (12, 3), ("1", 23), ("1", "23"), ("12", "3"), (1, "23")]
    assert len({seeds.integer(*key) for key in keys}) == len(keys)


def test_the_numbers_of_a_key_are_the_same_on_every_machine():
    # Recorded once; Philox and BLAKE2b are defined bit by bit.
    assert seeds.integer(0, "views", 5) == 5699971516376274280
    assert seeds.rng(0, "a").random() == 0.8076424257554682


def test_an_index_outside_the_range_is_refused():
    with pytest.raises(ValueError, match=r"outside \[0, 4\)"):
        seeds.permuted(np.array([4]), 4, 0)
