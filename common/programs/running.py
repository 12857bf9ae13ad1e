"""A batch's jobs as runs of a program: what :class:`common.jobs.Jobs` does for a batch that has one."""

import errno
import os
import re
import shlex
import shutil
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from common.batch import BatchSpec, JobState, Reason
from common.programs import environment, process
from common.programs.array import ArrayIndices
from common.programs.failure import ProgramFailed
from common.programs.launcher import Launcher
from common.programs.logs import Logs
from common.programs.placeholders import Command, text
from common.programs.process import Ended, Unwatched, Watch
from common.programs.program import Program
from common.programs.result import NOTHING_SAID, Result, Results, last_line
from common.programs.scratch import Scratch
from common.programs.streams import MOST_BYTES, Stream
from common.seeds import Streams, seed31
from common.sweep import Sweep

SHELL = "/bin/sh"
# So many jobs are prepared at once: right after a program, in caches that it has emptied, each takes ten times as long.
AHEAD_JOBS = 32
# A job's number in the array, its command and its environment.
Prepared = tuple[int, list[bytes], dict[bytes, bytes]]
# As shells have it for a program that is not there, or cannot be run.
NOT_FOUND, NOT_EXECUTABLE = 127, 126
# A program that came so near to its limit, and failed, failed for want of memory.
NEAR_THE_LIMIT = 0.9
_SHOWN_LINES, _SHOWN_CHARACTERS, _SHOWN_COMMAND = 20, 2500, 1000
# What runtimes say when memory is refused: Python, C++, Rust, R, Java, the C library, GNU's tools and Fortran.
_NO_MEMORY = re.compile(
    rb"\bMemoryError\b|std::bad_alloc|[Cc]annot allocate (memory|vector of size)|memory allocation of \d+ bytes failed"
    rb"|OutOfMemoryError|[Oo]ut of memory|[Mm]emory exhausted|[Ii]nsufficient (virtual )?memory|[Nn]ot enough memory"
    rb"|Error allocating \d+ bytes|exceed memory limit"
)


@dataclass
class Usage:
    """What the last job's program used."""

    cpu_seconds: float = 0.0
    rss_kb: int = 0


class ProgramJobs:
    """Runs any job of a batch by its index, with the same bytes as its result wherever and whenever.

    ``check`` fills up a point's parameters with their defaults. ``place`` is the batch's directory, which gets the
    logs; None keeps none. ``scratch`` becomes the jobs' ``JOB_DIR``; None makes one. Raises
    :class:`common.errors.StorageUnavailable` when there is no room for that.
    """

    def __init__(
        self,
        spec: BatchSpec,
        check: Callable[[Mapping[str, Any]], dict[str, Any]] = dict,
        place: Path | None = None,
        *,
        scratch: Path | None = None,
        watch: Watch | None = None,
    ) -> None:
        #: Of the job that was run last; one object for all.
        self.usage = Usage()
        self._spec = spec
        self._check = check
        self._program = program = Program.from_dict(spec.program)
        self._watch = watch or Unwatched()
        self._limit_kb = spec.memory_limit_mb * 1024
        self._streams = Streams(spec.seed)
        self._results = Results(spec.outputs)
        self._logs = Logs(program, spec.id, place) if place else None
        words = (SHELL, "-c", *program.command) if program.shell else program.command
        self._command = Command(words, verbatim=program.shell)
        self._indices = ArrayIndices.parse(program.array) if program.array else None
        indices = self._indices
        span = (indices.count, indices.minimum, indices.maximum) if indices else (spec.jobs, 1, spec.jobs)
        self._fixed = environment.inherited() | environment.of_batch(program, spec.id, *span)
        self._sweep = Sweep.from_dict(spec.sweep) if spec.sweep else None
        self._at = lru_cache(64)(self._point)
        self._launcher: Launcher | None = None
        self._found: dict[bytes, str] = {}
        self._prepared: dict[tuple[int, int], Prepared] = {}
        self._last = (0, 0)
        self._scratch = Scratch(scratch)
        self._fixed |= {b"JOB_DIR": os.fsencode(self._scratch.path)}
        self._fixed |= {b"JOB_RESULT": os.fsencode(self._scratch.result_path)}

    def result(self, index: int, attempt: int = 1) -> Result:
        """Run job ``index``; returns its CSV file's bytes and its numeric outputs.

        Raises :class:`ProgramFailed`, or :class:`common.errors.StorageUnavailable` when its logs cannot be written.
        """
        if self._spec.job_seconds:
            time.sleep(self._spec.job_seconds)
        self.usage.cpu_seconds, self.usage.rss_kb = 0.0, 0
        task, words, variables = self._take_prepared(index, attempt)
        out, err = Stream(), Stream()
        try:
            try:
                ended = self._run(words, variables, out, err)
                data, is_line = self._evaluate(words, ended, out, err)
            except BaseException:
                self._keep(task, attempt, out, err)
                raise
            self._keep(task, attempt, out, err, only_a_line=is_line)
            return data
        finally:
            self._scratch.clear()

    def close(self) -> None:
        """Close and remove what was opened and made for the jobs."""
        self._scratch.close()
        for part in (self._logs, self._launcher):
            if part is not None:
                part.close()

    def _point(self, point: int) -> tuple[dict[str, str], dict[bytes, bytes]]:
        """A point's parameters: for the command, and with all that is the same for its jobs, for the environment."""
        own: Mapping[str, Any] = self._sweep.parameters(point) if self._sweep else {}
        parameters = self._check({**self._spec.parameters, **own})
        texts = {name: text(value) for name, value in parameters.items()}
        return texts, self._fixed | environment.of_parameters(parameters)

    def _take_prepared(self, index: int, attempt: int) -> Prepared:
        """What one attempt is started with; prepared with those of the jobs behind it, which come next."""
        found = self._prepared.pop((index, attempt), None)
        if found is None:
            found = self._prepare(index, attempt)
            self._prepared.clear()
            # One after the other; who asks for single ones, as a verification does, has no use for their neighbours.
            ahead = AHEAD_JOBS if self._last == (index - 1, attempt) else 1
            for job in range(index + 1, min(index + ahead, self._spec.jobs + 1)):
                try:
                    self._prepared[job, attempt] = self._prepare(job, attempt)
                except Exception:  # noqa: BLE001 - it is that job's, and told when its turn comes
                    break
        self._last = index, attempt
        return found

    def _prepare(self, index: int, attempt: int) -> Prepared:
        """The task, the command and the environment of one attempt."""
        task = self._indices.at(index) if self._indices else index
        sweep, batch = self._sweep, self._spec.id
        stream = sweep.stream(index) if sweep else index
        seed, short = self._streams.seed(stream), seed31(self._spec.seed, stream)
        texts, variables = self._at(sweep.point(index) if sweep else 0)
        own = {
            "seed": str(seed),
            "seed31": str(short),
            "index": str(index),
            "task": str(task),
            "attempt": str(attempt),
            "batch": str(batch),
            "dir": self._scratch.path,
        }
        given = environment.of_job(batch, index, task, attempt, seed, short)
        return task, self._command.fill(texts | own), variables | given

    def _run(self, words: list[bytes], variables: Mapping[bytes, bytes], out: Stream, err: Stream) -> Ended:
        path = self._found.get(words[0]) or self._find(words[0], variables)
        try:
            if self._launcher is None:
                self._launcher = Launcher(self._program.directory)
            ended = process.run(
                self._launcher, path, words, variables, out=out, err=err, limit_kb=self._limit_kb, watch=self._watch
            )
        except (OSError, ValueError) as error:
            raise self._not_started(path, error) from error
        self.usage.cpu_seconds, self.usage.rss_kb = ended.cpu_seconds, ended.peak_kb
        return ended

    def _find(self, word: bytes, variables: Mapping[bytes, bytes]) -> str:
        name = os.fsdecode(word)
        found: str | None = name
        if os.sep not in name:
            found = shutil.which(name, path=os.fsdecode(variables.get(b"PATH", os.fsencode(os.defpath))))
        path = Path(self._program.directory, found or name)
        if not found or not path.exists():
            where = path if found else f"{name}, in PATH"
            raise ProgramFailed(f"The program is not there on this worker: {where}", exit_code=NOT_FOUND)
        if path.is_dir() or not os.access(path, os.X_OK):
            raise ProgramFailed(f"The program is not executable: {path}", exit_code=NOT_EXECUTABLE)
        self._found[word] = str(path)
        return str(path)

    def _not_started(self, path: str, error: OSError | ValueError) -> ProgramFailed:
        self._found.clear()
        reason = error.strerror if isinstance(error, OSError) else str(error)
        if not Path(self._program.directory).is_dir():
            reason = f"its directory {self._program.directory} is not there on this worker"
        elif isinstance(error, OSError) and error.errno == errno.ENOEXEC:
            reason = "it is no program for this machine, nor a script that begins with #!"
        elif isinstance(error, OSError) and error.errno == errno.ENOENT:
            reason = "what its first line names after #! is not there"
        return ProgramFailed(f"The program could not be started: {path}: {reason}", exit_code=NOT_EXECUTABLE)

    def _evaluate(self, words: Sequence[bytes], ended: Ended, out: Stream, err: Stream) -> tuple[Result, bool]:
        """The job's result, and whether it is the only line that was printed."""
        for name, stream in (("stdout", out), ("stderr", err)):
            if stream.too_much:
                raise ProgramFailed(f"The program printed more than {MOST_BYTES >> 20} MiB on {name} and was killed")
        if ended.code or ended.killed_for_memory:
            raise self._failed(words, ended, err.end().strip() or out.end())
        data = self._scratch.take_result()
        if data is not None:
            return self._results.of_file(data), False
        printed = out.end()
        line = last_line(printed)
        cut = not out.whole and b"\n" not in printed.rstrip()
        found = self._results.of_line(line, cut=cut)
        return found or (NOTHING_SAID, ()), found is not None and printed.strip() == line

    def _failed(self, words: Sequence[bytes], ended: Ended, said: bytes) -> ProgramFailed:
        command = " ".join(shlex.quote(os.fsdecode(word)) for word in words)[:_SHOWN_COMMAND]
        lines = said.decode(errors="replace").rstrip().splitlines()[-_SHOWN_LINES:]
        shown = "\n".join(lines)[-_SHOWN_CHARACTERS:]
        how, reason = f"exit code {ended.code}", Reason.NonZeroExitCode
        if ended.code < 0:
            how, reason = f"signal {-ended.code} ({_signal_name(-ended.code)})", Reason.RaisedSignal
        state = JobState.FAILED
        if self._limit_kb and (
            ended.killed_for_memory or ended.peak_kb >= NEAR_THE_LIMIT * self._limit_kb or _NO_MEMORY.search(said)
        ):
            how += f", at its memory limit of {self._spec.memory_limit_mb} MB"
            state, reason = JobState.OUT_OF_MEMORY, Reason.OutOfMemory
        return ProgramFailed(
            f"$ {command}\n{shown}\nThe program ended with {how}" + (f": {lines[-1][:200]}" if lines else ""),
            state=state,
            reason=reason,
            exit_code=max(0, ended.code),
            signal=max(0, -ended.code),
        )

    def _keep(self, task: int, attempt: int, out: Stream, err: Stream, *, only_a_line: bool = False) -> None:
        if self._logs is not None and (err.total or (out.total and not only_a_line)):
            same = self._program.stdout == self._program.stderr
            self._logs.keep(task, attempt, b"" if only_a_line and not (same and err.total) else out.text(), err.text())


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "a real-time signal"
