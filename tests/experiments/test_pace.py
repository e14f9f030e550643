"""How far long work is: what fits into 80 columns, and what is told where there is no terminal."""

import io
import re
import time

import pace
import pytest
import rich.console


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def under_way(clock, seconds, steps=4, total=20_000, note=""):
    """Work whose first step takes a minute longer than the others."""
    work = pace.Pace("drawing held-out faces", total, 12_000)
    clock[0] += 60
    for _ in range(steps):
        clock[0] += seconds
        work.advance(note=note)
    return work


def test_rate_and_time_left_are_whole_at_80_columns(clock):
    long = "4/24 folds done, 4 at epoch 13/80: loss 1.234, training accuracy 0.456, and more of it"
    for seconds, rate, left in (
        (0.5, "2.0/s", "1:06:38 left"),
        (20, "20 s each", "44:25:20 "),
        (600, "600 s", "1332:40:00"),
    ):
        console = rich.console.Console(file=io.StringIO(), width=80, force_terminal=True)
        console.print(under_way(clock, seconds, note=long).bar())
        lines = re.sub(r"\x1b\[[0-9;]*m", "", console.file.getvalue()).splitlines()
        assert len(lines) == 2
        assert max(map(len, lines)) <= 80
        assert all(word in lines[0] for word in ("12004/20000", rate, left)), lines[0]
        assert lines[1].startswith("4/24 folds done, 4 at epoch 13/80: loss 1.234, training accu")
        assert lines[1].endswith("…")


def test_the_first_step_does_not_count_and_old_ones_are_forgotten(clock):
    work = under_way(clock, 0.5)
    assert work.rate == pytest.approx(2)
    for _ in range(40):
        clock[0] += 5
        work.advance()
    assert work.rate == pytest.approx(0.2)
    assert work.line() == (
        "drawing held-out faces 12044/20000: 4:22 gone, 11:03:00 left, 5.0 s each"
    )
    work.advance(completed=1, total=10)  # another part
    assert work.rate == 0
    assert work.line() == "drawing held-out faces 1/10: 4:22 gone"


def test_off_a_terminal_lines_tell_also_while_nothing_moves(monkeypatch):
    monkeypatch.setattr(pace, "EVERY", 0.01)
    told, console = [], rich.console.Console(file=io.StringIO())
    work = pace.Pace("fine-tuning", 80, 0)
    with pace.shown(work, console, told.append):
        while len(told) < 2:
            time.sleep(0.001)
        work.advance(note="loss 0.5")
        seen = len(told)
        while len(told) < seen + 2:
            time.sleep(0.001)
    assert told[0] == "fine-tuning 0/80: 0:00 gone"
    assert re.fullmatch(r"fine-tuning 1/80: \d:\d\d gone; loss 0.5", told[-1])
    ended = len(told)
    time.sleep(0.05)
    assert len(told) == ended
    assert console.file.getvalue() == ""
