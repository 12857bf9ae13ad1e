"""Progress on the terminal: how fast, and how long still; that is not said while something hangs."""

from collections.abc import Sequence

import pytest

from common.batch import BatchSpec, JobState
from common.ledger.batches import BatchView
from services.local.progress import Bar, Lines, Pace


def paced(*seen: tuple[float, int], total: int = 100) -> Pace:
    """A pace that began at 0 and has seen so many jobs done at these times."""
    pace = Pace(total, 0.0)
    for now, done in seen:
        pace.update(done, now)
    return pace


def test_the_time_left_is_at_the_rate_so_far() -> None:
    """Of all jobs since the begin."""
    pace = paced((1, 10), (2, 20))
    assert (pace.rate, pace.left) == (10, 8)
    assert paced((1, 50), (2, 100)).left == 0


def test_what_was_done_before_takes_no_time() -> None:
    """It counts as done, and not for the rate."""
    pace = Pace(100, 0.0)
    pace.keep(40)
    pace.update(40, 1.0)
    assert (pace.rate, pace.left) == (0, None)
    pace.update(60, 2.0)
    assert (pace.rate, pace.left) == (10, 4)


@pytest.mark.parametrize(
    ("seen", "known"),
    [
        ([(5, 0)], False),
        ([(1, 10), (2, 20), (4, 20)], True),
        # Five times as long as a step took, and no longer.
        ([(1, 10), (2, 20), (6.9, 20)], True),
        ([(1, 10), (2, 20), (7.1, 20)], False),
        # What comes in milliseconds may pause for seconds, as for a sync.
        ([(0.01, 10), (0.02, 20), (2.9, 20)], True),
        ([(0.01, 10), (0.02, 20), (3.1, 20)], False),
        # Jobs of a minute.
        ([(60, 2), (120, 4), (400, 4)], True),
        ([(60, 2), (120, 4), (421, 4)], False),
        ([(1, 10), (2, 20), (60, 20), (61, 30)], True),
    ],
    ids=str,
)
def test_nobody_knows_how_long_a_job_hangs(seen: Sequence[tuple[float, int]], known: bool) -> None:
    """Nor before any job is done; once there is progress again it is known again."""
    assert (paced(*seen).left is not None) is known


def view(done: int) -> BatchView:
    """A batch of 100 jobs of which so many are done."""
    counters = dict.fromkeys(JobState, 0) | {JobState.COMPLETED: done, JobState.PENDING: 100 - done}
    return BatchView(BatchSpec(1, 100, 1), counters, 0.0, 0.0, None, None, 0)


def test_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """One every two seconds, with the time left while it is known."""
    now = [0.0]
    lines = Lines(100, clock=lambda: now[0])
    for now[0], done in ((1.0, 10), (3.0, 30), (4.0, 40), (5.0, 50), (60.0, 50)):
        lines.update(view(done))
    assert capsys.readouterr().err.splitlines() == [
        "30/100 jobs, 10 jobs/s, 7 s left", "50/100 jobs, 10 jobs/s, 5 s left",
        "50/100 jobs, 1 jobs/s, time left unknown",
    ]  # fmt: skip


def test_long_times(capsys: pytest.CaptureFixture[str]) -> None:
    """In hours and minutes."""
    now = [0.0]
    lines = Lines(100, clock=lambda: now[0])
    for now[0], done in ((600.0, 1), (900.0, 90)):
        lines.update(view(done))
    assert [line.partition("jobs/s, ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "16:30:00 left", "100 s left"
    ]  # fmt: skip


def test_the_bar(capsys: pytest.CaptureFixture[str]) -> None:
    """Says the same; what it draws last is what stays."""
    now = [0.0]
    with Bar(100, clock=lambda: now[0]) as bar:
        for now[0], done in ((1.0, 10), (5.0, 50), (600.0, 50)):
            bar.update(view(done))
    assert "50/100" in (last := capsys.readouterr().err)
    assert "time left unknown" in last.split("50/100")[-1]
