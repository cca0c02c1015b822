"""What a long job says of itself."""

import pytest

from geodino.runs.progress import JobProgress


def test_what_was_done_before_makes_neither_the_rate_nor_the_time_left_better(monkeypatch, capsys):
    now = [0.0]
    monkeypatch.setattr("geodino.runs.progress.time.monotonic", lambda: now[0])
    monkeypatch.setattr("sys.stderr.isatty", lambda: False, raising=False)
    with JobProgress("Mpx", 100, quiet=False) as progress:
        progress.skip(60)
        now[0] = 40.0
        progress.advance(20)
    # 20 in 40 s are one in two seconds, and 20 are left.
    assert capsys.readouterr().err == "80 of 100 Mpx, 0.5 a second, about 40 s left\n"


@pytest.mark.parametrize("count", [0, 60])
def test_nothing_new_says_nothing(monkeypatch, capsys, count):
    now = [0.0]
    monkeypatch.setattr("geodino.runs.progress.time.monotonic", lambda: now[0])
    with JobProgress("Mpx", 100, quiet=False) as progress:
        now[0] = 40.0
        progress.skip(count)
    assert capsys.readouterr().err == ""
