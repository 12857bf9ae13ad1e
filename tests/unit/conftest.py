"""Fixtures that unit tests share."""

import signal
from collections.abc import Iterator

import pytest

from services.worker.guard import Guard


@pytest.fixture
def guard() -> Iterator[Guard]:
    """An installed guard; the process's handlers are put back."""
    before = {number: signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGUSR1)}
    found = Guard()
    found.install()
    yield found
    for number, handler in before.items():
        signal.signal(number, handler)
