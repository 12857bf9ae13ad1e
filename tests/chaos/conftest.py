"""The system that the chaos tests hurt."""

from pathlib import Path

import pytest

from tests.chaos.system import ChaosSystem
from tests.conftest import RedisServer
from tests.support import Running


@pytest.fixture
def system(own_redis: RedisServer, root: Path, home: Path, processes: list[Running]) -> ChaosSystem:
    """A Redis of its own, no workers yet."""
    return ChaosSystem(own_redis, root, home, processes)
