"""The ways to die, and how each is done to a system."""

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from enum import Enum
from typing import TYPE_CHECKING

from common import queue
from common.ledger import keys
from common.ledger.ranges import DEFAULT_PARTITION
from services.local import redis_server
from tests import support
from tests.chaos.volume import Volume
from tests.support import Running

if TYPE_CHECKING:
    from tests.chaos.system import ChaosSystem

HOUR = 3600.0


class WayToDie(Enum):
    """What can happen to a part of the system."""

    KILL_SLOT = "kill -9 of a slot"
    KILL_WORKER = "kill -9 of a worker with its slots"
    TERM_WORKER = "SIGTERM of a worker"
    STOP_WORKER = "SIGSTOP of a worker for longer than its lease"
    KILL_REDIS = "kill -9 of Redis, started again with its log"
    STOP_REDIS = "SIGSTOP of Redis for longer than a lease"
    CUT_REDIS = "all connections to Redis end, and none can be made for longer than a lease"
    EMPTY_REDIS = "FLUSHALL of Redis"
    LOSE_MESSAGES = "all messages in the queue vanish"
    DOUBLE_MESSAGES = "all messages in the queue are there twice"
    DISK_FULL = "no space is left on the volume until the workers complain"
    VOLUME_GONE = "the volume is gone until the workers complain"
    CLOCK_JUMP = "a worker's clocks jump by hours, forward and back"

    @property
    def hits_workers(self) -> bool:
        """Whether it needs a worker to strike."""
        return self.name.endswith(("_SLOT", "_WORKER")) or self.needs_volume or self is WayToDie.CLOCK_JUMP

    @property
    def needs_volume(self) -> bool:
        """Whether it needs a volume of the test's own."""
        return self in (WayToDie.DISK_FULL, WayToDie.VOLUME_GONE)


class Faults:
    """Does what :class:`WayToDie` says, and brings back what does not come back by itself."""

    def __init__(self, system: "ChaosSystem") -> None:
        self._system = system

    def inflict(self, way: WayToDie) -> None:
        """Do it; returns when what the fault took away is back."""
        getattr(self, f"_{way.name.lower()}")()

    @property
    def _seconds(self) -> float:
        """How long a fault lasts that has to last longer than a lease."""
        return self._system.lease_seconds * 1.5

    def _a_worker(self) -> Running:
        return support.wait_for(lambda: next(iter(self._system.living()), None), 60, "a worker")  # type: ignore[return-value]

    def _kill_slot(self) -> None:
        worker = self._a_worker()
        pids = subprocess.run(["pgrep", "-P", str(worker.pid)], capture_output=True, text=True, check=False).stdout
        for pid in pids.split()[:1]:
            # Its worker may be on its way out and have taken it along.
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)

    def _kill_worker(self) -> None:
        self._a_worker().kill()

    def _term_worker(self) -> None:
        self._a_worker().signal(signal.SIGTERM)

    def _stop_worker(self) -> None:
        worker = self._a_worker()
        os.killpg(worker.pid, signal.SIGSTOP)
        time.sleep(self._seconds)  # the fault itself
        os.killpg(worker.pid, signal.SIGCONT)

    def _kill_redis(self) -> None:
        self._system.server.stop()
        self._system.server.restart()

    def _stop_redis(self) -> None:
        self._system.server.process.send_signal(signal.SIGSTOP)
        time.sleep(self._seconds)  # the fault itself
        self._system.server.process.send_signal(signal.SIGCONT)

    def _cut_redis(self) -> None:
        path = redis_server.socket_path(self._system.server.directory)
        away = path.with_suffix(".away")
        path.rename(away)
        for kind in ("normal", "pubsub"):
            self._system.connection.command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
        time.sleep(self._seconds)  # the fault itself
        away.rename(path)

    def _empty_redis(self) -> None:
        self._system.connection.command("FLUSHALL")

    def _lose_messages(self) -> None:
        self._system.connection.command("DEL", *queue.names(["default"]))

    def _double_messages(self) -> None:
        for name in queue.names(["default"]):
            for message in self._system.connection.command("LRANGE", name, 0, -1):
                self._system.connection.command("LPUSH", name, message)

    def _disk_full(self) -> None:
        with self._until_noticed() as volume:
            volume.fill()
        volume.free()

    def _volume_gone(self) -> None:
        with self._until_noticed() as volume:
            volume.take_away()
        volume.bring_back()

    @contextlib.contextmanager
    def _until_noticed(self) -> Iterator[Volume]:
        """Return once a worker has complained of the volume, or none has anything to write."""
        system = self._system
        assert system.volume is not None
        before = system.complaints()
        yield system.volume

        def noticed() -> bool:
            # Who starts now without a volume ends with a complaint of its own.
            sizes = [("ZCARD", keys.LEASES), ("ZCARD", keys.waiting(DEFAULT_PARTITION)), ("SCARD", keys.FINISHING)]
            # What is held, or waits for another batch, has nothing to write.
            busy = any(system.connection.many(sizes))
            return not busy or not system.living() or system.complaints() > before

        support.wait_for(noticed, 60, "a complaint of the volume", system.state)

    def _clock_jump(self) -> None:
        clock = self._system.clock_of(self._a_worker())
        # As after an hour's sleep of its machine.
        clock.move(wall=HOUR, boot=HOUR)
        time.sleep(self._seconds)  # the fault itself
        clock.move(wall=-2 * HOUR)
        time.sleep(self._seconds)  # the fault itself
        clock.move(wall=HOUR)
