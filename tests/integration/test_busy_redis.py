"""A Redis that answers BUSY, since somebody's script runs for long: whoever asks waits until it is over."""

from pathlib import Path

from common import queue
from common.errors import BrokerUnavailable
from common.ledger import Connection, batches
from common.ledger.ranges import Ticket
from common.submission import Submitter
from tests.conftest import RedisServer, StartWorker
from tests.support import counted, wait_for

ELSEWHERE = "elsewhere"


def answers(connection: Connection) -> bool:
    """Whether Redis is no longer busy."""
    try:
        return bool(connection.command("PING"))
    except BrokerUnavailable:
        return False


def test_a_worker_outlives_a_long_script(root: Path, own_redis: RedisServer, worker: StartWorker) -> None:
    """The worker that was answered BUSY loses its connection, not its life, and runs what comes afterwards."""
    connection, app = Connection(own_redis.url), queue.make_app(own_redis.url)
    connection.command("CONFIG", "SET", "busy-reply-threshold", 10)
    running = worker(REDIS_URL=own_redis.url)
    queue.publish(app, [Ticket(1, "1-stale-1", 1, 1, ELSEWHERE)])
    # Opened before the script runs: whoever connects then is answered BUSY, too.
    script, killer = (connection.redis.connection_pool.get_connection() for _ in range(2))
    # The script runs before the worker has its message, so its next command comes meanwhile.
    move = ("LMOVE", queue.queue_name(ELSEWHERE), queue.QUEUE, "LEFT", "RIGHT")
    script.send_packed_command(script.pack_commands([move, ("EVAL", "while true do end", 0)]), check_health=False)
    try:
        wait_for(lambda: "ResponseError" in running.text(), 30, "a BUSY answer to Celery's loop", running.text)
    finally:
        killer.send_command("SCRIPT", "KILL", check_health=False)
        assert killer.read_response() == b"OK"
        script.disconnect()
        killer.disconnect()
    # The script has been told to end, and ends a moment later.
    wait_for(lambda: answers(connection), 30, "an answer")
    spec = Submitter(connection, app, root).submit(3, seed=1)
    wait_for(
        lambda: batches.view(connection, spec.id).ended or running.process.poll() is not None, 60, "the batch's end"
    )
    assert running.process.poll() is None, running.text()
    assert counted(connection, spec.id) == {"COMPLETED": 3}
    connection.close()
