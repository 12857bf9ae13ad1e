"""The guard: a job is interrupted at its time limit, and may take no more memory than it is allowed."""

import os
import resource
import signal
import sys
import time

import pytest

from common.programs.memory import own_kb, status_kb
from services.worker.guard import Guard, Interrupted, TimeLimitReached, memory_limit
from tests.unit.signal_at import signal_at

# Long enough that only an interruption ends it within a test's time.
FOR_EVER = 60.0
LIMIT = 0.05
# By default the plug-in takes the very alarm that the guard takes.
pytestmark = pytest.mark.timeout(60, method="thread")
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc and RLIMIT_DATA are Linux's")


def loop(_index: int = 0, _attempt: int = 0) -> int:
    """Compute for a minute."""
    count, end = 0, time.monotonic() + FOR_EVER
    while time.monotonic() < end:
        count += 1
    return count


def sleep(_index: int = 0, _attempt: int = 0) -> None:
    """Wait for a minute."""
    time.sleep(FOR_EVER)


def careless(_index: int = 0, _attempt: int = 0) -> None:
    """Catch every Exception, as bad code does."""
    while True:
        try:
            loop()
        except Exception:  # noqa: BLE001 - what is tested
            continue


@pytest.mark.parametrize("job", [loop, sleep, careless])
def test_the_time_limit_interrupts(guard: Guard, job: object) -> None:
    """A loop, a sleep, and a job that swallows exceptions."""
    begin = time.monotonic()
    with pytest.raises(TimeLimitReached):
        guard.run(job, 1, 1, LIMIT)  # type: ignore[arg-type]
    assert LIMIT <= time.monotonic() - begin < FOR_EVER / 2


def test_a_job_within_its_limit_is_left_alone(guard: Guard) -> None:
    """Its result comes back, and no alarm is left behind."""
    assert guard.run(lambda index, attempt: (index, attempt), 7, 3, FOR_EVER) == (7, 3)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_no_alarm_is_left_after_a_failure(guard: Guard) -> None:
    """The next job does not inherit the time of one that raised."""
    with pytest.raises(ZeroDivisionError):
        guard.run(lambda index, _: index // 0, 1, 1, FOR_EVER)
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_without_a_limit_no_timer_is_set(guard: Guard) -> None:
    """0 is no limit."""
    seen = guard.run(lambda *_: signal.getitimer(signal.ITIMER_REAL), 1, 1, 0)
    assert seen == (0.0, 0.0)


def test_the_main_process_interrupts(guard: Guard) -> None:
    """SIGUSR1 ends the job at once, with or without a time limit."""
    for seconds in (0.0, FOR_EVER):
        with pytest.raises(Interrupted):
            guard.run(lambda *_: os.kill(os.getpid(), signal.SIGUSR1) or loop(), 1, 1, seconds)


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGUSR1])
def test_a_signal_between_jobs_has_no_effect(guard: Guard, number: signal.Signals) -> None:
    """One that comes late interrupts neither the commit nor the next job."""
    os.kill(os.getpid(), number)
    assert guard.run(lambda *_: "next", 2, 1, 0) == "next"
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGUSR1])
def test_no_alarm_is_left_whenever_a_signal_comes(guard: Guard, number: signal.Signals) -> None:
    """Before any instruction of the guard's: the job is interrupted or not, and the next one, without a limit, runs."""
    begun = interrupted = 0
    while begun == interrupted:
        came = signal_at(number, begun, lambda code: code is Guard.run.__code__)
        try:
            with came:
                guard.run(lambda index, _attempt: index, 1, 1, FOR_EVER)
        except (TimeLimitReached, Interrupted):
            pass
        assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0), f"at instruction {begun}"
        assert guard.run(lambda index, _attempt: index, 2, 1, 0.0) == 2
        begun, interrupted = begun + 1, interrupted + came.sent
    assert begun > 10


def test_a_second_signal_does_not_interrupt_the_first_ones_handling(guard: Guard) -> None:
    """A job's own clean-up is not torn again."""
    cleaned = []

    def job(_index: int, _attempt: int) -> None:
        try:
            os.kill(os.getpid(), signal.SIGUSR1)
        finally:
            os.kill(os.getpid(), signal.SIGUSR1)
            cleaned.append(True)

    with pytest.raises(Interrupted):
        guard.run(job, 1, 1, 0)
    assert cleaned == [True]


def test_neither_is_an_exception() -> None:
    """So that ``except Exception`` in a job does not swallow them."""
    assert not issubclass(TimeLimitReached, Exception)
    assert not issubclass(Interrupted, Exception)


@needs_linux
def test_more_memory_than_allowed_is_a_memory_error() -> None:
    """A job that wants far more than its limit is refused; a little is given; afterwards all is as before."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_limit(64):
        assert len(bytearray(2**20)) == 2**20
        with pytest.raises(MemoryError):
            # More than this process can have freed and kept, from which it would be served.
            bytearray(2**32)
    assert resource.getrlimit(resource.RLIMIT_DATA) == before
    assert len(bytearray(256 * 2**20)) == 256 * 2**20


@needs_linux
def test_the_memory_limit_is_lifted_after_a_failure() -> None:
    """Whatever the job raised."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with pytest.raises(ZeroDivisionError), memory_limit(64):
        raise ZeroDivisionError
    assert resource.getrlimit(resource.RLIMIT_DATA) == before


def test_no_memory_limit_changes_nothing() -> None:
    """0 is no limit."""
    before = resource.getrlimit(resource.RLIMIT_DATA)
    with memory_limit(0):
        assert resource.getrlimit(resource.RLIMIT_DATA) == before


@needs_linux
def test_the_size_of_a_process() -> None:
    """Ours is some megabytes; one that is not there has none, nor has a field that is not there."""
    assert status_kb("self", "VmRSS") > 1000
    assert status_kb(os.getpid(), "VmData") > 1000
    assert status_kb(2**22 + 1, "VmRSS") == 0
    assert status_kb("self", "VmNone") == 0
    own = own_kb()
    assert own.resident == pytest.approx(status_kb("self", "VmRSS"), rel=0.05)
    assert own.data == pytest.approx(status_kb("self", "VmData") + status_kb("self", "VmStk"), rel=0.05)
