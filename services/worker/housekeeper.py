"""What keeps the ledger moving: offer again what died, publish what is owed.

No service of its own: each worker's main process asks for a short lock in each round, and whoever holds it sweeps.
A sweep moves nothing but through the ledger's scripts, so two housekeepers at once do no harm.
"""

from collections.abc import Callable
from pathlib import Path

import structlog
from celery import Celery

from common import queue
from common.batch import range_text
from common.ledger import Connection, batches, finishing, ranges, workers
from common.ledger.ranges import Ticket
from services.worker.following import follow
from services.worker.stopping import StopRules

log = structlog.get_logger()

LOCK_SECONDS = 5.0
# A gap in our own sweeps that means we were suspended or cut off.
ABSENCE_SECONDS = 3.0
# How long a batch that has ended may be without its results files before somebody is asked (again).
FINISH_RETRY_SECONDS = 5.0
# Messages of a kind that are published in one round: half a second of work, for which heartbeat and renewals wait.
MOST_PAID = 500


class Housekeeper:
    """Sweeps when it is its turn. The clock is an argument; nothing here sleeps."""

    def __init__(
        self,
        connection: Connection,
        app: Celery,
        name: str,
        root: Path,
        *,
        lease_seconds: float,
        slice_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        self._connection = connection
        self._app = app
        self._name = name
        self._root = root
        self._lease_seconds = lease_seconds
        self._slice_seconds = slice_seconds
        self._clock = clock
        self._last_sweep = clock()
        self._patient_until = 0.0
        self._missing: dict[str, int] = {}
        self._asked_to_finish = clock()
        self._stop_rules = StopRules(connection, app, slice_seconds=slice_seconds)

    def sweep(self) -> None:
        """One round. Raises BrokerUnavailable or kombu's OperationalError; the next round goes on from there."""
        now = self._clock()
        if now - self._last_sweep > ABSENCE_SECONDS:
            # We were away, and so perhaps was everybody: let the holders renew before their leases are judged.
            self._patient_until = now + self._lease_seconds
            log.info("housekeeper.patient", seconds=self._lease_seconds)
        if workers.become_housekeeper(self._connection, self._name, seconds=LOCK_SECONDS):
            patient = now < self._patient_until
            if not patient:
                self._reclaim()
            queue.publish(self._app, ranges.release(self._connection, patient=patient))
            follow(self._connection, self._app, self._root)
            self._stop_rules.apply()
            self._finish(now)
            most = MOST_PAID
            for partition in ranges.partitions(self._connection):
                self._share(partition)
                most -= self._publish_owed(partition, most)
        else:
            self._missing.clear()
        self._last_sweep = now

    def _reclaim(self) -> None:
        tickets = ranges.reclaim(self._connection, careful_seconds=2 * self._slice_seconds)
        for ticket in tickets:
            log.warning("range.reclaimed", range=range_text(ticket.batch, ticket.first, ticket.count))
        queue.publish(self._app, tickets)

    def _finish(self, now: float) -> None:
        """Have the results files written of batches that have ended and that nobody is writing."""
        if now - self._asked_to_finish < FINISH_RETRY_SECONDS:
            return
        self._asked_to_finish = now
        awaited = finishing.awaited(self._connection)
        if not awaited:
            return
        served = self._served()
        # While all slots are at long jobs it waits: each further message would take a slot from its range later.
        asked = set[int]().union(
            *(queue.queued_finishes(self._connection, each) for each in served or ranges.partitions(self._connection))
        )
        for batch in [each for each in awaited if each not in asked][:MOST_PAID]:
            if finishing.is_claimed(self._connection, batch):
                continue
            own = batches.view(self._connection, batch).spec.partition
            # It takes nothing of the partition but its records: where none of its workers lives, another's does it.
            queue.publish_finish(self._app, batch, own if own in served or not served else served[0])

    def _served(self) -> list[str]:
        """The partitions that have slots, those with the most of them first."""
        slots: dict[str, int] = {}
        for info in workers.alive(self._connection):
            for partition in info.partitions if info.slots else ():
                slots[partition] = slots.get(partition, 0) + info.slots
        return sorted(slots, key=lambda partition: (-slots[partition], partition))

    def _share(self, partition: str) -> None:
        found = ranges.share(self._connection, slice_seconds=self._slice_seconds, partition=partition)
        queue.publish(self._app, found)

    def _publish_owed(self, partition: str, most: int) -> int:
        """Publish tickets that were lost, or never published: fewer messages in the queue than ranges that wait.

        Returns how many, ``most`` at most.
        Between a pop and its claim a message is in neither, so only what is missing twice in a row counts. A ticket
        too many does no harm: it finds nothing and goes away.
        """
        waiting, queued = ranges.owed(self._connection, queue.queue_name(partition), partition)
        missing = max(0, waiting - queued)
        lost = min(missing, self._missing.get(partition, 0), most)
        if lost:
            log.warning("tickets.owed", count=lost)
            queue.publish(self._app, [Ticket(0, f"owed-{number}", 0, 0, partition) for number in range(lost)])
            missing -= lost
        self._missing[partition] = missing
        return lost
