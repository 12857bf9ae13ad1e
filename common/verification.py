"""Run a sample of a batch's completed jobs again on a running system, each on another worker than the first time.

The sample is cut into parts by the worker that ran its jobs first. Each is a message that a slot takes, passes on to
another worker, or runs and reports. None of it is in the ledger's books: a slot that dies at it costs a batch nothing.
"""

import random
import secrets
from collections.abc import Iterator
from typing import Any

import numpy as np
import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from common import queue
from common.batch import JobState
from common.errors import BrokerUnavailable, Conflict, InvalidInput
from common.ledger import Connection, batches, table, verifications, workers
from common.ledger.batches import BatchView
from common.ledger.table import record_dtype
from common.ledger.verifications import Part, Verification

log = structlog.get_logger()

CHUNK_JOBS = 2**16
# What one message asks for.
PART_JOBS = 25
MOST_JOBS = 10_000


class Verifier:
    """Asks the workers of one ledger and queue to run jobs again."""

    def __init__(self, connection: Connection, app: Celery) -> None:
        self._connection = connection
        self._app = app

    def request(self, batch_id: int, sample: int, *, seed: int | None = None) -> str:
        """Have ``sample`` of the completed jobs, or all if they are fewer, run again; returns the verification's id.

        Raises ``NotFound``, :class:`InvalidInput`, and :class:`Conflict` when nothing can be verified now.
        """
        view = batches.view(self._connection, batch_id)
        if not 1 <= sample <= MOST_JOBS:
            raise InvalidInput(f"sample is {sample}; it must be from 1 to {MOST_JOBS:_}", field="sample")
        if not view.counters[JobState.COMPLETED]:
            raise Conflict(f"No job of batch {batch_id} has completed yet.", field="batch")
        if not any(info.slots and info.runs(view.spec) for info in workers.alive(self._connection)):
            raise Conflict(f"No live worker can run batch {batch_id}: `batchsim explain {batch_id}`.", field="batch")
        name = secrets.token_hex(4)
        parts = list(_parts(batch_id, name, self._chosen(view, sample, seed)))
        verifications.begin(self._connection, batch_id, name, parts)
        try:
            for part in parts:
                queue.publish_verify(self._app, part, view.spec.partition)
        except OperationalError as error:
            raise BrokerUnavailable(f"The queue does not answer: {error}") from error
        return name

    def look(self, batch_id: int, name: str) -> Verification:
        """How far it is; what was lost on its way to a slot is asked for again. Raises ``NotFound``."""
        found = verifications.look(self._connection, batch_id, name)
        if found.silent:
            self._ask_again(found)
        return found

    def _ask_again(self, found: Verification) -> None:
        """Publish once more what nobody has begun and waits in no queue; harmless if it is on its way all the same."""
        lost = [verifications.asked(self._connection, found.batch, found.name, number) for number in found.silent]
        if not any(lost):
            return
        partition = batches.view(self._connection, found.batch).spec.partition
        waiting = verifications.queued(self._connection, queue.errands_name(partition), found.name)
        for part in lost:
            if part is None or part.number in waiting or not verifications.ask_again(self._connection, part):
                continue
            log.warning("verify.asked_again", batch=part.batch, jobs=len(part.jobs))
            try:
                queue.publish_verify(self._app, part, partition)
            except OperationalError as error:
                # The next look tries again.
                log.warning("publish.failed", error=str(error))

    def _chosen(self, view: BatchView, sample: int, seed: int | None) -> dict[str, list[int]]:
        """Completed jobs drawn at random, by the worker that ran each, "" when nobody knows."""
        total = view.counters[JobState.COMPLETED]
        drawn = np.array(sorted(random.Random(seed).sample(range(total), min(sample, total))))  # noqa: S311 - no secret
        names = workers.slot_names(self._connection)
        found: dict[str, list[int]] = {}
        seen, dtype = 0, record_dtype(view.spec.outputs)
        for first in range(1, view.spec.jobs + 1, CHUNK_JOBS):
            count = min(CHUNK_JOBS, view.spec.jobs - first + 1)
            records = table.read(self._connection, view.spec.id, first, count, dtype)
            completed = np.flatnonzero(records["state"] == JobState.COMPLETED)
            for place in completed[drawn[(drawn >= seen) & (drawn < seen + len(completed))] - seen].tolist():
                slot = names.get(int(records["slot"][place]), "")
                found.setdefault(slot.rpartition("/")[0], []).append(first + place)
            seen += len(completed)
        return found


def _parts(batch_id: int, name: str, chosen: dict[str, list[int]]) -> Iterator[Part]:
    number = 0
    for worker, jobs in sorted(chosen.items()):
        for start in range(0, len(jobs), PART_JOBS):
            yield Part(batch_id, name, number, tuple(jobs[start : start + PART_JOBS]), worker)
            number += 1


def to_json(found: Verification) -> dict[str, Any]:
    """A verification as the API shows it."""
    return {
        "id": found.name,
        "batch": found.batch,
        "state": "DONE" if found.done else "RUNNING",
        "sample": found.sample,
        "checked": found.checked,
        "differing": [{"job": f"{found.batch}_{job}", "why": why} for job, why in found.differing],
        "same_worker": found.same_worker,
        "lost": [{"job": f"{found.batch}_{job}", "why": why} for job, why in found.lost],
    }
