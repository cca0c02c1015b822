from geodino.tasks.drawn import drawn


def test_some_are_drawn_by_seed_in_their_order_and_all_where_there_are_few():
    names = tuple("abcdefghij")
    some = drawn(names, 4, seed=0)
    assert len(set(some)) == 4
    assert list(some) == sorted(some)
    assert some == drawn(names, 4, seed=0)
    assert len({drawn(names, 4, seed=seed) for seed in range(5)}) > 1
    assert drawn(names, 10, seed=0) == names
