"""Run a slice in a process of its own, so that a job that kills its process costs a fork and not the slot.

A new slot process takes Celery a tenth of a second, a fork some milliseconds. So once a batch has had a crash, its
slices are run by a child of the slot: if that dies, the slot closes its books and goes on. The records are on the
board, as always; the slice comes in a private file, which a child that died has left empty.

A slot that has run jobs itself does not do so: what those left running in its process, such as the threads of OpenMP,
does not survive a fork, and would be waited for without end.
"""

import ctypes
import gc
import os
import pickle
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from common.errors import StorageUnavailable
from common.ledger.ranges import Slice
from common.packed import write_all
from services.worker.board import Board
from services.worker.job import BatchJob
from services.worker.slice import SliceFailure

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform.startswith("linux") else None


class ProcessDied(Exception):
    """The child ended before its slice did; how, and with which job, is on the board."""


class _Outcome(NamedTuple):
    """What became of the slice; ``unwritable`` is why it ended early, ``fault`` a traceback of our own."""

    work: Slice | None
    unwritable: StorageUnavailable | None = None
    fault: str = ""
    differing: tuple[int, ...] = ()


class Isolation:
    """Runs slices in children of this process, one at a time. ``index`` is the slot's on the board."""

    def __init__(self, board: Board, index: int) -> None:
        self._board = board
        self._index = index
        self._file, name = tempfile.mkstemp(prefix="batchsim-slice-")
        Path(name).unlink()
        # Forked pages are shared until they are written to, and the collector writes to every object.
        gc.freeze()

    def run(self, job: BatchJob, work: Callable[[], Slice]) -> Slice:
        """Call ``work`` and make the job's results durable, in a child.

        Raises :class:`ProcessDied`, and :class:`SliceFailure` as ``work`` does.
        """
        os.ftruncate(self._file, 0)
        sys.stdout.flush()
        sys.stderr.flush()
        parent = os.getpid()
        child = os.fork()
        if not child:
            self._be_child(parent, job, work)
        self._board.note_runner(self._index, child)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self._board.note_runner(self._index, 0)
        job.refresh()
        said = os.pread(self._file, os.fstat(self._file).st_size, 0)
        if not said:
            self._board.note_exit(self._index, code)
            raise ProcessDied
        try:
            outcome = pickle.loads(said)  # noqa: S301 - our own child wrote it, into a file without a name
        except (pickle.UnpicklingError, EOFError):
            # The disk was full, and the slice is told in part. What was done is on the board.
            raise ProcessDied from None
        job.differing.extend(outcome.differing)
        return _result(outcome)

    def _be_child(self, parent: int, job: BatchJob, work: Callable[[], Slice]) -> None:
        """Never returns: what is below on the stack is the slot's."""
        try:
            _die_with(parent)
            said = pickle.dumps(_outcome(job, work)._replace(differing=tuple(job.differing)))
            sys.stdout.flush()
            sys.stderr.flush()
            write_all(self._file, said, 0)
        finally:
            os._exit(0)


def _outcome(job: BatchJob, work: Callable[[], Slice]) -> _Outcome:
    try:
        done = work()
        job.sync()
    except SliceFailure as failure:
        # What is not durable by now was packed in this process's memory, and goes with it.
        return _Outcome(failure.work if job.try_sync() else None, failure.reason)
    except StorageUnavailable as error:
        return _Outcome(None, error)
    except Exception:  # noqa: BLE001 - the slot raises it again
        return _Outcome(None, fault=traceback.format_exc())
    return _Outcome(done)


def _result(outcome: _Outcome) -> Slice:
    if outcome.work is None:
        raise outcome.unwritable or RuntimeError(outcome.fault)
    if outcome.unwritable:
        raise SliceFailure(outcome.work, outcome.unwritable)
    return outcome.work


def _die_with(parent: int) -> None:
    """Let this process be killed when its parent dies, so that nobody runs a range beside the next who has it."""
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)
