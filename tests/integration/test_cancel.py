"""A cancel on a real Redis: the rest of the batch ends at once, at a cost that does not grow with its jobs."""

from common.ledger import Connection, batches, control
from tests.integration.ledger_support import commit, submit, take
from tests.support import counted, dump


def test_cancel(connection: Connection) -> None:
    """What has not ended is CANCELLED, what has stays, late commits are refused, and a second time changes nothing."""
    spec, other = submit(connection, 10), submit(connection, 10)
    done, held = take(connection, spec.id), take(connection, spec.id)
    while done.batch != spec.id:
        done = take(connection, spec.id)
    commit(connection, done, 1)
    assert control.cancel(connection, spec.id)[0] == 9
    assert counted(connection, spec.id) == {"COMPLETED": 1, "CANCELLED": 9}
    assert batches.view(connection, spec.id).state == "CANCELLED"
    assert batches.view(connection, spec.id).ended
    if held.batch == spec.id:
        assert commit(connection, held, 1).word == "stale"
    before = dump(connection)
    assert control.cancel(connection, spec.id)[0] == 0
    assert dump(connection) == before
    assert sum(counted(connection, other.id).values()) == 10


def commands(connection: Connection) -> int:
    """How many commands Redis has executed, those inside scripts included."""
    info = connection.redis.info("commandstats")
    return sum(
        int(stats["calls"]) for name, stats in info.items() if name not in ("cmdstat_info", "cmdstat_config|resetstat")
    )


def test_cancel_costs_the_same_for_ten_million_jobs(connection: Connection) -> None:
    """Cancelling takes as many commands for 10,000,000 jobs as for 1,000: it counts ranges, not jobs."""
    costs = []
    # With the first one the server may have yet to be told the script.
    for jobs in (1000, 1000, 10_000_000):
        spec = submit(connection, jobs)
        for _ in range(3):
            take(connection)
        before = commands(connection)
        assert control.cancel(connection, spec.id)[0] == jobs
        costs.append(commands(connection) - before)
    assert costs[1] == costs[2]
