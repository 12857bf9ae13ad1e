"""A fork waits for what a thread is at, but not for ever; the child never waits."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from services.worker.forking import Forks

# Python 3.12 and later warn of what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def fork(child: Callable[[], object] = lambda: None) -> int:
    """Fork, let the child do something and end; its exit code."""
    pid = os.fork()
    if pid == 0:
        child()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@contextmanager
def at_work(forks: Forks) -> Iterator[threading.Event]:
    """Another thread is at what no fork may come into, until the event is set."""
    entered, leave = threading.Event(), threading.Event()

    def work() -> None:
        with forks.wait():
            entered.set()
            leave.wait(30)

    thread = threading.Thread(target=work)
    thread.start()
    assert entered.wait(10)
    yield leave
    leave.set()
    thread.join(10)


def test_a_fork_waits_for_the_end_of_the_block() -> None:
    """And then goes on."""
    forks, codes = Forks(), []
    with at_work(forks) as leave:
        forking = threading.Thread(target=lambda: codes.append(fork()))
        forking.start()
        forking.join(0.2)
        assert codes == []
        leave.set()
        forking.join(10)
        assert codes == [0]


def test_a_block_that_does_not_end_is_not_waited_for_without_end() -> None:
    """The block stays its thread's: the next fork waits for it as well."""
    forks = Forks(0.05)
    with at_work(forks) as leave:
        assert fork() == 0
        assert forks._lock.locked()
        leave.set()
    with forks.wait():
        pass


def test_a_child_finds_nothing_locked() -> None:
    """Neither after a wait nor after one that was given up."""
    forks = Forks(0.05)

    def enter() -> None:
        with forks.wait():
            pass

    assert fork(enter) == 0
    with at_work(forks):
        assert fork(enter) == 0
