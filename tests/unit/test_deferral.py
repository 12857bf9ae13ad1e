"""What waits in a deferral is handled at its end, once, and never later."""

import signal
from collections.abc import Iterator

import pytest

from common.programs.deferral import Deferral
from services.worker.guard import Guard, Interrupted


class Told(Exception):
    """What the handler raises."""


@pytest.fixture
def held() -> Iterator[tuple[Deferral, list[int]]]:
    """A deferral that SIGUSR1 and SIGUSR2 wait for, and the numbers that were handled; the second raises."""
    seen: list[int] = []

    def note(number: int, _frame: object) -> None:
        seen.append(number)
        if number == signal.SIGUSR2:
            raise Told

    deferral = Deferral()
    before = [(number, signal.signal(number, deferral.wrap(note))) for number in (signal.SIGUSR1, signal.SIGUSR2)]
    # Where the tests run in the background it is ignored.
    before.append((signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler)))
    yield deferral, seen
    for number, handler in before:
        signal.signal(number, handler)


def test_signals_wait_for_the_end_of_the_outer_one(held: tuple[Deferral, list[int]]) -> None:
    """However many are within it."""
    deferral, seen = held
    outer = deferral.begin()
    inner = deferral.begin()
    signal.raise_signal(signal.SIGUSR1)
    deferral.end(inner)
    assert seen == []
    deferral.end(outer)
    assert seen == [signal.SIGUSR1]


def test_each_is_handled_though_the_first_raises(held: tuple[Deferral, list[int]]) -> None:
    """Whatever is left would be another job's."""
    deferral, seen = held
    before = deferral.begin()
    signal.raise_signal(signal.SIGUSR2)
    signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(Told):
        deferral.end(before)
    assert seen == [signal.SIGUSR2, signal.SIGUSR1]
    deferral.end(deferral.begin())
    assert len(seen) == 2


def test_it_ends_though_an_interrupt_was_waiting(held: tuple[Deferral, list[int]]) -> None:
    """Python raises that of the mask first."""
    deferral, seen = held
    before = deferral.begin()
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGUSR1)
    with pytest.raises(KeyboardInterrupt):
        deferral.end(before)
    assert seen == [signal.SIGUSR1]
    signal.raise_signal(signal.SIGUSR1)
    assert len(seen) == 2
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_what_comes_too_late_for_a_job_is_not_the_next_ones(guard: Guard) -> None:
    """The guard has let go of it by then."""
    deferral = Deferral()
    handler = deferral.wrap(guard._on_interrupt)
    before = deferral.begin()
    handler(signal.SIGUSR1, None)
    deferral.end(before)
    with pytest.raises(Interrupted):
        guard.run(lambda *_: signal.raise_signal(signal.SIGUSR1), 1, 1, 0.0)
