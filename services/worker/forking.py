"""Fork the pool's processes only while no thread is at something that must not be cut in two.

A child has only the thread that forked it. A lock that another thread held at that moment, such as Python's import lock
of a module, stays locked in the child for ever: a slot that is replaced while the keeper loads somebody's file would
hang when it imports the same.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

# A fork does not wait for longer: somebody's file may hang while it is imported, and Celery's loop must turn.
FORK_WAIT_SECONDS = 30.0


class Forks:
    """Keeps the forks of this process, from whichever thread, out of the blocks of :meth:`wait`."""

    def __init__(self, wait_seconds: float = FORK_WAIT_SECONDS) -> None:
        self._wait_seconds = wait_seconds
        self._lock = threading.Lock()
        self._waited = False
        os.register_at_fork(before=self._before, after_in_parent=self._after, after_in_child=self._in_child)

    @contextmanager
    def wait(self) -> Iterator[None]:
        """A fork waits for the end of this block, which a thread enters that never forks itself."""
        with self._lock:
            yield

    def _before(self) -> None:
        self._waited = self._lock.acquire(timeout=self._wait_seconds)

    def _after(self) -> None:
        if self._waited:
            self._lock.release()

    def _in_child(self) -> None:
        self._lock = threading.Lock()
