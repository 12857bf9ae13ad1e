"""A Redis that is away, that refuses or that has forgotten: errors of ours, or the same answer as before."""

from collections.abc import Callable

import pytest

from common.batch import BatchSpec
from common.errors import BrokerUnavailable
from common.ledger import Connection, batches, control, ranges, workers
from common.ledger.workers import WorkerInfo
from tests.integration.ledger_support import claim, commit, submit, take
from tests.support import counted, dump

ACTIONS: dict[str, Callable[[Connection], object]] = {
    "view": lambda c: batches.view(c, 1),
    "submit": lambda c: batches.submit(c, BatchSpec(1, 1, 1)),
    "claim": claim,
    "renew": lambda c: ranges.renew(c, {"t": 0}, lease_seconds=1),
    "reclaim": ranges.reclaim,
    "cancel": lambda c: control.cancel(c, 1),
    "alive": workers.alive,
    "beat": lambda c: workers.heartbeat(c, WorkerInfo("a", 1, 0, 1)),
}


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("url", ["unix:///tmp/there-is-no-such.sock", "redis://127.0.0.1:1"])
def test_dead_socket_is_broker_unavailable(action: str, url: str) -> None:
    """Whatever is asked of a Redis that is not there fails as BrokerUnavailable, which a retry can help."""
    dead = Connection(url, timeout_seconds=0.5, retries=0)
    with pytest.raises(BrokerUnavailable) as caught:
        ACTIONS[action](dead)
    assert caught.value.retryable
    dead.close()


def test_errors_of_redis_itself_are_broker_unavailable(connection: Connection) -> None:
    """A wrong type, or a refusal for lack of memory, is translated, too; the refused submit leaves nothing."""
    with pytest.raises(BrokerUnavailable, match="error"):
        connection.command("NONSENSE")
    before = dump(connection)
    connection.command("CONFIG", "SET", "maxmemory", 1)
    try:
        with pytest.raises(BrokerUnavailable, match="memory"):
            submit(connection, 5)
    finally:
        connection.command("CONFIG", "SET", "maxmemory", 0)
    assert dump(connection) == before


def test_scripts_are_loaded_again_after_a_flush(connection: Connection) -> None:
    """A Redis that has forgotten the scripts, as after a restart, is told them again."""
    connection.command("SCRIPT", "FLUSH")
    spec = submit(connection, 1)
    assert commit(connection, take(connection), 1).ended
    assert counted(connection, spec.id) == {"COMPLETED": 1}
