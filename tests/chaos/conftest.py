"""The system that the chaos tests hurt."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.chaos.system import ChaosSystem
from tests.chaos.volume import MountRefused, Volume
from tests.conftest import RedisServer
from tests.support import Running

FIGURES = "chaos"


@pytest.fixture
def volume(root: Path) -> Iterator[Volume | None]:
    """A small disk under the outputs directory; None where mounting is not permitted."""
    try:
        mounted = Volume(root)
    except MountRefused:
        # A right of the machine, not a server that was forgotten: its two ways to die are left out, and said so.
        yield None
        return
    yield mounted
    mounted.remove()


@pytest.fixture
def system(
    own_redis: RedisServer, volume: Volume | None, root: Path, home: Path, processes: list[Running]
) -> Iterator[ChaosSystem]:
    """A Redis of its own, no workers yet."""
    made = ChaosSystem(own_redis, volume, root, home, processes)
    yield made
    made.close()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Callable[[str], None]:
    """Takes a line that is printed at the end of the run, whether the test passes or not."""
    return lambda line: request.node.user_properties.append((FIGURES, line))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests measured."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    lines = [
        f"{report.nodeid.rpartition('::')[2]}: {line}"
        for report in reports
        if getattr(report, "when", "") == "call"
        for name, line in report.user_properties
        if name == FIGURES
    ]
    if lines:
        terminalreporter.section("chaos: what was measured")
        terminalreporter.write_line("\n".join(lines))
