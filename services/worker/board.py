"""The slot board: a small shared file in which a worker's processes see each other.

The main process writes one flag (drain), each slot its process id, the token of the range it holds, the program that it
runs, and what it has done of its present slice. So the main process knows what to renew and whom to stop, and whoever
takes a dead slot's place finds what that had finished and at which job it died, without asking Redis or Celery. It
outlives a process, not the machine: what must survive that is in the ledger.
"""

import mmap
import signal
import struct
import time
from dataclasses import dataclass
from pathlib import Path

# What a slot holds that runs jobs again to compare them, waits for the volume, or writes results files: no range, and
# so no lease.
VERIFYING = "verify-"
AWAITING_STORAGE = "storage-"
FINISHING = "finish-"
_ENTRY = struct.Struct("<IB59s")
_HEADER_BYTES = _ENTRY.size
# What the slot says of its slice: first job, record size, attempt, tries; seconds that the job may take and kB that
# it may grow to, told anew for each.
_SLICE = struct.Struct("<QIHHdQ")
_LIMITS = struct.Struct("<dQ")
# Jobs of the slice that are over, and since when it is at the next one (time.monotonic; 0: at none).
_PROGRESS = struct.Struct("<Qd")
# The process that runs the slice, if it is not the slot itself.
_RUNNER = struct.Struct("<I")
# In which state the main process ended the job by killing that process, its exit code, and when its end was seen
# (time.monotonic).
_END = struct.Struct("<Bhd")
_EXIT = struct.Struct("<hd")
# What the slot says of the program that it runs: process group (0: none), kB that it may grow to; and the main process,
# whether it has killed it for that.
_PROGRAM = struct.Struct("<IQB")
_RUNNER_AT = _ENTRY.size + _SLICE.size + _PROGRESS.size
_END_AT = _RUNNER_AT + _RUNNER.size
_PROGRAM_AT = _END_AT + _END.size
_RECORDS_AT = _PROGRAM_AT + _PROGRAM.size
# A slice ends when its records fill this; at 44 bytes a job that is 23,000 jobs.
RECORD_BYTES = 2**20
# Error texts of the slice's failed jobs, one after the other: the bytes taken, then of each job its index and length.
_TEXTS_AT = _RECORDS_AT + RECORD_BYTES
_TEXTS_TAKEN = struct.Struct("<I")
_TEXT = struct.Struct("<QH")
TEXT_BYTES = 2**18
# How many tickets the slot has taken, whoever it was.
_TICKETS_AT = _TEXTS_AT + _TEXTS_TAKEN.size + TEXT_BYTES
_TICKETS = struct.Struct("<Q")
_SLOT_BYTES = _TICKETS_AT + _TICKETS.size


@dataclass(frozen=True)
class SlotEntry:
    """What a slot says: its process, and the range that it holds or ""."""

    index: int
    pid: int
    token: str

    @property
    def has_range(self) -> bool:
        """Whether it holds a range, and so a lease."""
        return bool(self.token) and not self.token.startswith((VERIFYING, AWAITING_STORAGE, FINISHING))


@dataclass(frozen=True)
class Progress:
    """How far a slot is in its slice; ``since`` is 0 when it is at no job, ``record_size`` when it is in no slice.

    The limits are those of a job that computes; while its results are put into place, it has none.
    """

    first: int
    record_size: int
    attempt: int
    tries: int
    limit_seconds: float
    limit_kb: int
    done: int
    since: float
    runner: int
    ended_as: int
    exit_code: int
    ended: float

    @property
    def job(self) -> int:
        """The job that it is at; 0: at none."""
        return self.first + self.done if self.record_size and self.since else 0


@dataclass(frozen=True)
class RunningProgram:
    """The program that a slot runs; ``group`` is 0 when it runs none."""

    group: int
    limit_kb: int
    killed: bool


class Board:
    """A board of ``slots`` entries in the file ``path``."""

    def __init__(self, path: Path, slots: int) -> None:
        self.path = path
        self.slots = slots
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _HEADER_BYTES + slots * _SLOT_BYTES)

    @classmethod
    def create(cls, path: Path, slots: int) -> "Board":
        """Make an empty board."""
        with path.open("wb") as file:
            file.truncate(_HEADER_BYTES + slots * _SLOT_BYTES)
        return cls(path, slots)

    @property
    def draining(self) -> bool:
        """Whether the slots shall stop at the next job boundary."""
        return self._map[0] != 0

    def drain(self) -> None:
        """Ask the slots to stop at the next job boundary."""
        self._map[0] = 1

    def write(self, index: int, pid: int, token: str = "") -> None:
        """Say what slot ``index`` holds; it is in no slice. One writer per entry."""
        raw, offset = token.encode(), self._offset(index)
        # First: who reads the others' words, and then finds them still named here, has none of ours among them.
        _ENTRY.pack_into(self._map, offset, pid, 0, b"")
        _SLICE.pack_into(self._map, offset + _ENTRY.size, 0, 0, 0, 0, 0.0, 0)
        _PROGRESS.pack_into(self._map, offset + _ENTRY.size + _SLICE.size, 0, 0.0)
        self.note_runner(index, 0)
        _END.pack_into(self._map, offset + _END_AT, 0, 0, 0.0)
        _PROGRAM.pack_into(self._map, offset + _PROGRAM_AT, 0, 0, 0)
        # The length is written with the text, in one copy.
        _ENTRY.pack_into(self._map, offset, pid, len(raw), raw)

    def read(self, index: int) -> SlotEntry:
        """What slot ``index`` said last."""
        pid, length, raw = _ENTRY.unpack_from(self._map, self._offset(index))
        return SlotEntry(index, pid, raw[:length].decode(errors="replace"))

    def entries(self) -> list[SlotEntry]:
        """What all slots said last."""
        return [self.read(index) for index in range(self.slots)]

    def recorder(self, index: int) -> "Recorder":
        """Where slot ``index`` writes the progress of its slices."""
        return Recorder(self._map, self._offset(index) + _ENTRY.size)

    def progress(self, index: int) -> Progress:
        """How far slot ``index`` is."""
        offset = self._offset(index)
        return Progress(
            *_SLICE.unpack_from(self._map, offset + _ENTRY.size),
            *_PROGRESS.unpack_from(self._map, offset + _ENTRY.size + _SLICE.size),
            *_RUNNER.unpack_from(self._map, offset + _RUNNER_AT),
            *_END.unpack_from(self._map, offset + _END_AT),
        )

    def records(self, index: int) -> bytes:
        """The records of the jobs that slot ``index`` has done in its slice."""
        progress, start = self.progress(index), self._offset(index) + _RECORDS_AT
        return self._map[start : start + progress.done * progress.record_size]

    def failures(self, index: int) -> dict[int, str]:
        """Error texts of the failed jobs of that slice, as far as there was room."""
        at = self._offset(index) + _TEXTS_AT
        (taken,) = _TEXTS_TAKEN.unpack_from(self._map, at)
        at += _TEXTS_TAKEN.size
        found, end = {}, at + taken
        while at < end:
            job, length = _TEXT.unpack_from(self._map, at)
            at += _TEXT.size + length
            found[job] = self._map[at - length : at].decode(errors="replace")
        return found

    def note_runner(self, index: int, pid: int) -> None:
        """Say which process runs the slices of slot ``index``; 0: the slot's own."""
        _RUNNER.pack_into(self._map, self._offset(index) + _RUNNER_AT, pid)

    def note_end(self, index: int, state: int) -> None:
        """Say in which state the main process ends the job of slot ``index``, before it kills its process."""
        self._map[self._offset(index) + _END_AT] = state

    def note_exit(self, index: int, code: int) -> None:
        """Say with which exit code slot ``index`` has ended by now; negative: minus the signal."""
        _EXIT.pack_into(self._map, self._offset(index) + _END_AT + _END.size - _EXIT.size, code, time.monotonic())

    def note_ticket(self, index: int) -> None:
        """Say that slot ``index`` has taken one more ticket, whether or not anything waits for it."""
        _TICKETS.pack_into(self._map, self._offset(index) + _TICKETS_AT, self._tickets(index) + 1)

    def tickets(self) -> int:
        """How many tickets the slots have taken."""
        return sum(self._tickets(index) for index in range(self.slots))

    def program(self, index: int) -> RunningProgram:
        """The program that slot ``index`` runs."""
        group, limit_kb, killed = _PROGRAM.unpack_from(self._map, self._offset(index) + _PROGRAM_AT)
        return RunningProgram(group, limit_kb, bool(killed))

    def note_memory(self, index: int) -> None:
        """Say that the main process kills the program of slot ``index`` because of its memory."""
        self._map[self._offset(index) + _RECORDS_AT - 1] = 1

    def close(self) -> None:
        """Unmap the board; the file stays."""
        self._map.close()

    def _tickets(self, index: int) -> int:
        return int(_TICKETS.unpack_from(self._map, self._offset(index) + _TICKETS_AT)[0])

    def _offset(self, index: int) -> int:
        return _HEADER_BYTES + index % self.slots * _SLOT_BYTES


class Recorder:
    """Takes the records of one slice after the other, where they survive the process that runs it."""

    def __init__(self, memory: mmap.mmap | bytearray, offset: int) -> None:
        self._memory = memory
        self._slice_at = offset
        self._limits_at = offset + _SLICE.size - _LIMITS.size
        self._progress_at = offset + _SLICE.size
        self._program_at = offset + _PROGRAM_AT - _ENTRY.size
        self._records_at = offset + _RECORDS_AT - _ENTRY.size
        self._texts_at = offset + _TEXTS_AT - _ENTRY.size
        self._size = self._done = 0
        self._end = self._records_at

    @classmethod
    def private(cls) -> "Recorder":
        """One that nobody else sees."""
        return cls(bytearray(_SLOT_BYTES), 0)

    def begin(self, first: int, size: int, attempt: int, tries: int) -> None:
        """A slice from job ``first`` begins, with records of ``size`` bytes."""
        self._size, self._done, self._end = size, 0, self._records_at
        _PROGRESS.pack_into(self._memory, self._progress_at, 0, 0.0)
        _TEXTS_TAKEN.pack_into(self._memory, self._texts_at, 0)
        _SLICE.pack_into(self._memory, self._slice_at, first, size, attempt, tries, 0.0, 0)

    def start(self, now: float) -> None:
        """The first job begins; ``now`` is time.monotonic()."""
        _PROGRESS.pack_into(self._memory, self._progress_at, self._done, now)

    def add(self, record: bytes, now: float) -> None:
        """A job is over, and the next one begins."""
        # First the record, then the number: who finds the number finds the record.
        self._memory[self._end : self._end + self._size] = record
        self._end += self._size
        self._done += 1
        _PROGRESS.pack_into(self._memory, self._progress_at, self._done, now)

    def limit(self, seconds: float, limit_kb: int) -> None:
        """What the job computes may take so long, and its process grow to ``limit_kb``; 0 is no limit."""
        _LIMITS.pack_into(self._memory, self._limits_at, seconds, limit_kb)

    def fail(self, job: int, text: str) -> None:
        """A job has failed with this text; its record follows."""
        raw = text.encode(errors="replace")
        (taken,) = _TEXTS_TAKEN.unpack_from(self._memory, self._texts_at)
        if taken + _TEXT.size + len(raw) > TEXT_BYTES:
            return
        at = self._texts_at + _TEXTS_TAKEN.size + taken
        _TEXT.pack_into(self._memory, at, job, len(raw))
        self._memory[at + _TEXT.size : at + _TEXT.size + len(raw)] = raw
        # Last: what is counted is whole.
        _TEXTS_TAKEN.pack_into(self._memory, self._texts_at, taken + _TEXT.size + len(raw))

    def stop(self) -> None:
        """No further job begins, and the one that did does not count."""
        _PROGRESS.pack_into(self._memory, self._progress_at, self._done, 0.0)

    def program_began(self, pid: int, limit_kb: int) -> None:
        """The job runs a program, in process group ``pid``, which may take ``limit_kb``; 0 is no limit."""
        _PROGRAM.pack_into(self._memory, self._program_at, pid, limit_kb, 0)

    def program_ended(self) -> bool:
        """The program is over; whether the main process has killed it for its memory."""
        # The limit was the program's: what it printed is kept, however long the volume takes for that.
        self.limit(0.0, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
        killed = self._memory[self._program_at + _PROGRAM.size - 1] != 0
        _PROGRAM.pack_into(self._memory, self._program_at, 0, 0, 0)
        return killed

    @property
    def full(self) -> bool:
        """Whether there is no room for another record."""
        return self._end + self._size > self._records_at + RECORD_BYTES

    def records(self) -> bytes:
        """What was added since :meth:`begin`."""
        return bytes(self._memory[self._records_at : self._end])
