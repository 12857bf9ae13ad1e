"""The Celery app, its settings, and the messages that travel: tickets for ranges, and "write the results"."""

import re
import secrets
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from celery import Celery

from common.batch import range_text
from common.ledger import Connection
from common.ledger.ranges import DEFAULT_PARTITION, Ticket
from common.ledger.verifications import Part, message_id

QUEUE = "batchsim"
RUN_RANGE = "batchsim.run_range"
FINISH = "batchsim.finish"
VERIFY = "batchsim.verify"

_FINISH_ID = re.compile(rb'"finish-(\d+)-')


def queue_name(partition: str) -> str:
    """The queue whose messages the workers of a partition take."""
    return QUEUE if partition == DEFAULT_PARTITION else f"{QUEUE}.{partition}"


def errands_name(partition: str) -> str:
    """The queue, with the same takers, of what is no range: results to write, jobs to verify.

    Apart from the tickets, of which thousands may wait; what is in it tells slots at long ranges to take it.
    """
    return f"{queue_name(partition)}:errands"


def names(partitions: Iterable[str]) -> list[str]:
    """All queues of these partitions."""
    return [name for partition in partitions for name in (errands_name(partition), queue_name(partition))]


def make_app(broker_url: str) -> Celery:
    """A Celery app for this broker; connects only when it is used."""
    app = Celery("batchsim", broker=_celery_url(broker_url))
    app.conf.update(
        task_default_queue=QUEUE,
        task_serializer="json",
        accept_content=["json"],
        result_accept_content=["json"],
        task_ignore_result=True,
        # A ticket is early acknowledged: the ledger, not the broker, knows what is outstanding.
        task_acks_late=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        # How long the message of a process that died counts as being worked on; meanwhile its slot gets no other.
        worker_lost_wait=0.01,
        task_track_started=False,
        task_send_sent_event=False,
        broker_connection_retry_on_startup=True,
        # The default gives up after 100 tries and leaves a worker that lives and does nothing.
        broker_connection_max_retries=None,
        # BUSY, which Redis answers while somebody's script runs for long, would end the worker.
        broker_channel_error_retry=True,
        # True kills the running jobs whenever the connection blinks.
        worker_cancel_long_running_tasks_on_connection_loss=False,
        worker_hijack_root_logger=False,
        worker_redirect_stdouts=False,
        worker_enable_remote_control=True,
        worker_send_task_events=True,
        broker_transport_options={
            "visibility_timeout": 86400,
            "unacked_restore_interval": 5,
            "unacked_restore_throttle": 1,
            "unacked_mutex_expire": 10,
            "socket_keepalive": True,
            "health_check_interval": 10,
            # Never retry_on_timeout: a dropped pub/sub connection then blocks the worker's main loop for ever.
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
        },
    )
    return app


def publish(app: Celery, tickets: Iterable[Ticket], producer: Any = None) -> int:
    """Put one message per ticket into the queue; returns how many. Raises kombu's OperationalError."""
    sent = 0
    with app.producer_or_acquire(producer) as channel:
        for ticket in tickets:
            app.send_task(
                RUN_RANGE,
                args=(ticket.batch, ticket.token, ticket.partition),
                queue=queue_name(ticket.partition),
                task_id=ticket.token,
                # What Flower shows.
                argsrepr=range_text(ticket.batch, ticket.first, ticket.count),
                kwargsrepr="",
                producer=channel,
                ignore_result=True,
            )
            sent += 1
    return sent


def publish_finish(app: Celery, batch: int, partition: str = DEFAULT_PARTITION) -> None:
    """Ask a worker of the partition to write the batch's results files. Raises kombu's OperationalError."""
    app.send_task(
        FINISH,
        args=(batch,),
        queue=errands_name(partition),
        task_id=f"finish-{batch}-{secrets.token_hex(4)}",
        argsrepr=f"{batch}",
        kwargsrepr="",
        ignore_result=True,
    )


def queued_finishes(connection: Connection, partition: str) -> set[int]:
    """The batches whose results are asked for in the partition's queue of errands, all of which is read."""
    messages = connection.command("LRANGE", errands_name(partition), 0, -1)
    return {int(found[1]) for message in messages if (found := _FINISH_ID.search(message))}


def publish_verify(app: Celery, part: Part, partition: str = DEFAULT_PARTITION) -> None:
    """Ask a worker of the partition to run jobs again and compare. Raises kombu's OperationalError."""
    app.send_task(
        VERIFY,
        args=(asdict(part),),
        queue=errands_name(partition),
        task_id=f"{message_id(part.name)}-{part.number}-{secrets.token_hex(4)}",
        argsrepr=f"{part.batch}: {len(part.jobs)} jobs",
        kwargsrepr="",
        ignore_result=True,
    )


def _celery_url(url: str) -> str:
    """Kombu's spelling of a Unix socket's URL."""
    return url.replace("unix://", "redis+socket://", 1) if url.startswith("unix://") else url
