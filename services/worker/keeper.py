"""The keeper: a thread in the worker's main process that does what must go on whatever Celery's loop is doing.

It says that the worker lives, renews the leases of its slots, offers a dead slot's range again, takes its turn as
housekeeper, and ends a shutdown whose grace is over. It is a thread rather than a timer of Celery's loop, because
that loop stands still while it reconnects and during the whole of a warm shutdown, when renewing matters most.
"""

import contextlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from common import queue, recovery
from common.batch import JobState
from common.errors import BatchSimError
from common.ledger import Connection, ranges, workers
from common.ledger.workers import HEARTBEAT_SECONDS, WorkerInfo
from common.programs.memory import group_kb, status_kb
from common.programs.process import end_group
from common.settings import Settings
from common.simulations import registry
from services.worker.aftermath import bury, end_program
from services.worker.board import Board, SlotEntry
from services.worker.forking import Forks
from services.worker.housekeeper import Housekeeper

log = structlog.get_logger()

ROUND_SECONDS = 0.5
RENEW_SECONDS = 1.0
# A job that was told to stop, or has reached its time limit, has so long before its process is killed.
STOP_SECONDS = 2.0
# The process that takes a dead one's place needs so long at most.
SUCCESSOR_SECONDS = 3.0
# A process that was killed starts nothing any more after this time.
KILLED_SECONDS = 0.05
# What a job's own interpreter may grow by beside its data.
RSS_SLACK_KB = 16 * 1024
# A worker that finds tickets in the queue and idle slots at home for so long, and takes none, does not consume.
SILENT_SECONDS = 20.0
# Celery's loop ticks four times a second; it may reconnect for up to 30 s.
LOOP_STALL_SECONDS = 60.0
EXIT_SILENT = 70
# A keeper that has had no answer for so long takes Redis to be away.
OUT_OF_TOUCH_SECONDS = 10.0
# Longer than a step of a round takes while Redis hangs, whose commands then fail one after the other.
SUSPENDED_SECONDS = 10.0


class Keeper:
    """See the module. ``status_path`` is a small JSON file that the health check reads."""

    def __init__(self, settings: Settings, app: Celery, board: Board, name: str, status_path: Path) -> None:
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)
        self._forks = Forks()
        self._settings = settings
        self._app = app
        self._board = board
        self._worker = name
        self._partitions = tuple(settings.worker_partitions.split(","))
        self._status_path = status_path
        registry.use(settings.simulations_dir)
        self._connection = Connection(settings.broker_url, timeout_seconds=2.0, retries=0)
        self._housekeeper = Housekeeper(
            self._connection,
            app,
            name,
            settings.output_dir,
            lease_seconds=settings.lease_seconds,
            slice_seconds=settings.slice_seconds,
            clock=_clock,
        )
        self._stopped = threading.Event()
        self._renewed = self._beaten = 0.0
        self._consuming_at = self.loop_seen = self._stepped = self._in_touch_at = _clock()
        self._taken = 0
        self._drain_deadline: float | None = None
        self._lost_since: dict[str, float] = {}
        self._dead_since: dict[SlotEntry, float] = {}
        self._recovery: threading.Thread | None = None

    def start(self) -> None:
        """Begin the rounds; a second call changes nothing."""
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self) -> None:
        """End the rounds and sign off."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join(timeout=3)
        # When the pool was told to stop at once, a slot may still be at a program.
        self._kill_slots([entry for entry in self._board.entries() if self._board.program(entry.index).group])
        try:
            workers.sign_off(self._connection, self._worker)
        except BatchSimError as error:
            log.warning("worker.sign_off_failed", error=str(error))

    def drain(self) -> None:
        """A shutdown begins: slots stop at the next job boundary, and have the grace time for it. Twice: stop now."""
        self._board.drain()
        now = _clock()
        again = self._drain_deadline is not None
        self._drain_deadline = now if again else now + self._settings.shutdown_grace_seconds

    def _run(self) -> None:
        while not self._stopped.wait(ROUND_SECONDS):
            self._round(_clock())

    def _round(self, now: float) -> None:
        steps: list[Callable[[], None]] = [
            lambda: self._end_when_over(now),
            lambda: self._renew_in_time(now),
            lambda: self._beat(now),
            lambda: self._offer_dead(now),
            self._enforce_limits,
            lambda: self._watch_loop(now),
            self._recover,
            self._housekeeper.sweep,
            lambda: self._write_status(_clock()),
        ]
        for step in steps:
            self._notice_absence(_clock())
            try:
                with self._forks.wait():
                    step()
            except (BatchSimError, OperationalError) as error:
                log.warning("keeper.step_failed", error=str(error))
            except Exception:
                # A volume that is away, a defect in one step: the others go on, for without them the leases run out.
                log.exception("keeper.step_failed")

    def _notice_absence(self, now: float) -> None:
        """We were suspended, or the clock jumped: what stood still meanwhile has not been silent."""
        if now - self._stepped > SUSPENDED_SECONDS:
            self._consuming_at = self.loop_seen = self._in_touch_at = now
        self._stepped = now

    def _end_when_over(self, now: float) -> None:
        if self._drain_deadline is not None and now >= self._drain_deadline:
            self._end_now()

    def _renew_in_time(self, now: float) -> None:
        if now - self._renewed >= min(self._settings.lease_seconds / 5, RENEW_SECONDS):
            self._renew(now)
            self._renewed = now

    def _beat(self, now: float) -> None:
        if now - self._beaten >= HEARTBEAT_SECONDS:
            workers.heartbeat(self._connection, self._info())
            if now - self._in_touch_at > OUT_OF_TOUCH_SECONDS:
                # Celery's loop reconnects only now.
                self._consuming_at = self.loop_seen = now
            self._beaten = self._in_touch_at = now

    def _recover(self) -> None:
        """Rebuild what an emptied Redis has forgotten, in a thread: heartbeat and renewals go on meanwhile."""
        if (self._recovery is not None and self._recovery.is_alive()) or not recovery.is_needed(self._connection):
            return
        self._recovery = threading.Thread(target=self._rebuild, name="recovery", daemon=True)
        self._recovery.start()

    def _rebuild(self) -> None:
        # A connection of its own: reading a million files, its commands may wait longer than a round.
        connection = Connection(self._settings.broker_url)
        try:
            recovery.recover(connection, self._app, self._settings.output_dir)
        except (BatchSimError, OSError, OperationalError) as error:
            log.warning("recovery.failed", error=str(error))
        finally:
            connection.close()

    def _renew(self, now: float) -> None:
        """Prolong the leases; whoever works on a range that was lost or cancelled is told to stop, and then made to."""
        entries = [entry for entry in self._board.entries() if entry.has_range and _lives(entry.pid)]
        jobs = {entry.token: self._board.progress(entry.index).job for entry in entries}
        stop = set(ranges.renew(self._connection, jobs, lease_seconds=self._settings.lease_seconds))
        self._lost_since = {token: self._lost_since.get(token, now) for token in stop}
        for entry in entries:
            # The slot may have gone on to another range since.
            if entry.token in stop and self._board.read(entry.index) == entry:
                over = now - self._lost_since[entry.token] >= STOP_SECONDS
                log.info("range.stopped", token=entry.token, job=jobs[entry.token], killed=over)
                _signal(self._runner(entry), signal.SIGKILL if over else signal.SIGUSR1)

    def _enforce_limits(self) -> None:
        """Kill slots whose job did not stop at its time limit, or has grown beyond its memory limit."""
        for entry in self._board.entries():
            self._limit_program(entry.index)
            progress = self._board.progress(entry.index)
            if not (entry.token and progress.since and (progress.limit_seconds or progress.limit_kb)):
                continue
            late = progress.limit_seconds and time.monotonic() - progress.since > progress.limit_seconds + STOP_SECONDS
            grown = progress.limit_kb and status_kb(self._runner(entry), "VmRSS") > progress.limit_kb + RSS_SLACK_KB
            if (late or grown) and self._board.progress(entry.index) == progress:
                self._board.note_end(entry.index, JobState.TIMEOUT if late else JobState.OUT_OF_MEMORY)
                _signal(self._runner(entry), signal.SIGKILL)

    def _runner(self, entry: SlotEntry) -> int:
        """The process that runs the slot's jobs."""
        return self._board.progress(entry.index).runner or entry.pid

    def _limit_program(self, index: int) -> None:
        """Kill a program that has grown beyond its memory limit; its slot lives, and says what has become of it."""
        program = self._board.program(index)
        grown = program.limit_kb and group_kb(program.group) > program.limit_kb + RSS_SLACK_KB
        if grown and self._board.program(index) == program:
            self._board.note_memory(index)
            end_group(program.group)

    def _offer_dead(self, now: float) -> None:
        """A dead slot's successor sees to its range; if none comes, as while the worker ends, the keeper does."""
        dead = {entry for entry in self._board.entries() if entry.token and not _lives(entry.pid)}
        self._dead_since = {entry: self._dead_since.get(entry, now) for entry in dead}
        for entry in dead:
            if now - self._dead_since[entry] >= SUCCESSOR_SECONDS:
                bury(self._connection, self._app, self._settings, self._board, entry)
                if self._board.read(entry.index) == entry:
                    self._board.write(entry.index, 0)

    def _end_now(self) -> None:
        """The grace is over: offer again what the slots hold, then die; a late commit of theirs would be refused."""
        entries = [entry for entry in self._board.entries() if entry.pid and entry.token]
        try:
            tickets = (
                ranges.reclaim(self._connection, [entry.token for entry in entries], crashed=False) if entries else []
            )
            queue.publish(self._app, tickets)
            workers.sign_off(self._connection, self._worker)
        except (BatchSimError, OperationalError) as error:
            log.warning("shutdown.offer_failed", error=str(error))
        log.warning("shutdown.grace_over", ranges=len(entries))
        self._kill_slots(self._board.entries())
        os._exit(0)

    def _kill_slots(self, entries: list[SlotEntry]) -> None:
        """Kill slots and then what they run, which they would otherwise take for a failure of its own."""
        for entry in entries:
            if entry.pid:
                _signal(entry.pid, signal.SIGKILL)
        if entries:
            time.sleep(KILLED_SECONDS)
        for entry in entries:
            end_program(self._board, entry.index)

    def _watch_loop(self, now: float) -> None:
        """Alive but silent: the loop stands, or all slots idle beside a full queue, untouched. Ends the process then.

        While a slot is at work the worker is left alone: ending it would cost that job; and while Redis is away, since
        the loop stands still then.
        """
        if self._drain_deadline is not None or now - self._in_touch_at > OUT_OF_TOUCH_SECONDS:
            return
        idle = not any(entry.token for entry in self._board.entries())
        names = queue.names(self._partitions)
        queued = sum(self._connection.many([("LLEN", name) for name in names])) if idle else 0
        taken = self._board.tickets()
        if not (idle and queued) or taken != self._taken:
            self._consuming_at, self._taken = now, taken
        if now - self._consuming_at > SILENT_SECONDS or now - self.loop_seen > LOOP_STALL_SECONDS:
            log.error("worker.silent", queued=queued, loop_seconds=round(now - self.loop_seen, 1))
            os._exit(EXIT_SILENT)

    def _info(self) -> WorkerInfo:
        entries = self._board.entries()
        slots = 0 if self._drain_deadline is not None else len(entries)
        busy, simulations = sum(1 for entry in entries if entry.token), tuple(registry.capabilities())
        return WorkerInfo(self._worker, slots, busy, os.getpid(), self._partitions, simulations)

    def _write_status(self, now: float) -> None:
        status = {
            "at": time.time(),
            "out_of_touch_seconds": now - self._in_touch_at,
            "loop_seconds": now - self.loop_seen,
            "not_consuming_seconds": now - self._consuming_at,
            "draining": self._drain_deadline is not None,
        }
        temporary = self._status_path.with_suffix(".tmp")
        temporary.write_text(json.dumps(status), encoding="utf-8")
        temporary.replace(self._status_path)


def pulse(keeper: Keeper) -> Callable[[], None]:
    """What Celery's loop calls to show that it turns."""

    def beat() -> None:
        keeper.loop_seen = _clock()

    return beat


def _clock() -> float:
    """Seconds that go on while the machine sleeps, so that we notice that we were away; where there are such."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()


def _signal(pid: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
