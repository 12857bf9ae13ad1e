"""A slice whose jobs run programs: how their ends and their usage come into the records, and who is told of them."""

import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from common import outputs
from common.batch import BatchSpec, JobState, Reason
from common.ledger.ranges import Slice
from common.ledger.table import record_dtype
from common.programs.logs import Logs
from services.worker.aftermath import end_program
from services.worker.board import Board, Recorder, RunningProgram
from services.worker.guard import Guard
from services.worker.job import BatchJob
from services.worker.slice import run_slice
from tests.support import wait_for
from tests.unit.programs_support import lives, spec_of

# By default the plug-in takes the very alarm that the guard takes.
pytestmark = pytest.mark.timeout(60, method="thread")


def run(
    root: Path, line: str, count: int, *, recorder: Recorder | None = None, guard: Guard | None = None, **given: object
) -> tuple[BatchSpec, Slice, "np.ndarray"]:
    """A slice of a shell's line; returns its records too."""
    spec = spec_of(line, **given)  # type: ignore[arg-type]
    outputs.prepare(root, spec)
    job = BatchJob(spec, root, "slot", "none", scratch=root.parent / "scratch", watch=recorder)
    work = run_slice(
        job, 1, count, seconds=60, attempt=1, slot=9, stopping=lambda: False, recorder=recorder, guard=guard
    )
    job.close()
    return spec, work, np.frombuffer(work.records, record_dtype(spec.outputs))


def test_each_end_has_its_record(root: Path, guard: Guard) -> None:
    """State, reason, exit code and signal; what failed leaves no CSV, and its text is no traceback."""
    line = (
        "case $JOB_INDEX in 1) echo 5;; 2) exit 300;; 3) kill -9 $$;; 4) kill -ALRM $PPID; sleep 60;; 5) echo x;; esac"
    )
    _, work, records = run(root, line, 5, guard=guard, time_limit_seconds=60)
    assert [JobState(code).name for code in records["state"]] == ["COMPLETED", "FAILED", "FAILED", "TIMEOUT", "FAILED"]
    wanted = [Reason.NONE, Reason.NonZeroExitCode, Reason.RaisedSignal, Reason.TimeLimit, Reason.NoResult]
    assert records["reason"].tolist() == wanted
    assert records["exit"].tolist() == [0, 44, 0, 0, 0]
    assert records["signal"].tolist() == [0, 0, 9, 0, 0]
    assert [path.name for path in (root / "7").glob("job_*")] == ["job_1.csv"]
    assert sorted(work.failures) == [2, 3, 4, 5]
    assert "Traceback" not in work.failures[2] + work.failures[3] + work.failures[5]


def test_exits_and_signals_are_tried_again(root: Path) -> None:
    """As exceptions are; what no second attempt would help is not."""
    line = "case $JOB_INDEX in 1) exit 1;; 2) kill -9 $$;; 3) echo x;; 4) ./no;; esac"
    _, work, records = run(root, line, 4, retries=1)
    assert records["state"].tolist() == [JobState.PENDING] * 4
    assert work.failures == {}
    assert [(retry.first, retry.count) for retry in work.retries] == [(1, 4)]
    assert work.retries[0].text == "The program ended with exit code 1"


def test_usage_is_the_programs(root: Path) -> None:
    """Each record has its own job's, and a job whose program never began has none."""
    spin = f"{sys.executable} -S -c 'import time\nwhile time.process_time() < 0.3: pass'"
    _, _, records = run(root, f"[ $JOB_INDEX != 2 ] || {spin}; echo 1", 3)
    assert records["cpu"][1] >= 0.3
    assert records["cpu"][[0, 2]].max() < 0.2
    spec = spec_of(["./no"], id=8)
    outputs.prepare(root, spec)
    job = BatchJob(spec, root, "slot", "none")
    work = run_slice(job, 1, 1, seconds=60, attempt=1, slot=9, stopping=lambda: False)
    assert np.frombuffer(work.records, record_dtype(spec.outputs))["cpu"].tolist() == [0]
    job.close()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="RLIMIT_DATA counts what malloc maps on Linux only")
def test_a_memory_limit_is_the_programs_own(root: Path) -> None:
    """We are not limited by it, however small it is."""
    line = "until [ $(ulimit -d) = 16384 ]; do sleep 0.01; done; echo 1"
    _, work, _ = run(root, line, 3, memory_limit_mb=16)
    assert work.states == {JobState.COMPLETED: 3}
    assert len(bytearray(2**30)) == 2**30


def test_a_changed_program_fails_its_jobs(root: Path, tmp_path: Path) -> None:
    """Nothing keeps it from other workers, so that each job says what is wrong."""
    (tmp_path / "data").write_text("one", encoding="utf-8")
    spec = spec_of(["/bin/cat", "data"], tmp_path, files={"data": "another hash"}, version="v1")
    outputs.prepare(root, spec)
    job = BatchJob(spec, root, "slot", "none")
    work = run_slice(job, 1, 2, seconds=60, attempt=1, slot=9, stopping=lambda: False)
    job.close()
    assert work.states == {JobState.FAILED: 2}
    assert "has changed since the batch was submitted" in work.failures[1]


def test_the_board_knows_the_program(root: Path, tmp_path: Path) -> None:
    """While it runs and no longer; and whether it was killed for its memory."""
    ours, theirs = Board.create(tmp_path / "b", 3), Board(tmp_path / "b", 3)
    recorder = ours.recorder(1)
    recorder.begin(1, 44, 1, 0)
    recorder.program_began(4_000_000, 2**40)
    assert theirs.program(1) == RunningProgram(4_000_000, 2**40, killed=False)
    assert theirs.program(0) == theirs.program(2) == RunningProgram(0, 0, killed=False)
    theirs.note_memory(1)
    assert theirs.program(1).killed
    assert recorder.program_ended()
    assert theirs.program(1) == RunningProgram(0, 0, killed=False)
    assert not recorder.program_ended()
    recorder.program_began(5, 0)
    ours.note_end(1, JobState.TIMEOUT)
    ours.note_exit(1, -9)
    assert theirs.program(1).group == 5
    assert (theirs.progress(1).ended_as, theirs.progress(1).exit_code) == (JobState.TIMEOUT, -9)
    ours.write(1, os.getpid())
    assert theirs.program(1).group == 0
    for board in (ours, theirs):
        board.close()
    # A slice's own recorder is told of each.
    run(root, "echo 1", 2, recorder=recorder_of(tmp_path / "c"))


def recorder_of(path: Path) -> Recorder:
    """A recorder on a board of its own."""
    return Board.create(path, 1).recorder(0)


def test_a_dead_slots_program_is_ended(tmp_path: Path) -> None:
    """With all of its group; without one nothing is killed."""
    board = Board.create(tmp_path / "b", 1)
    end_program(board, 0)
    pid = os.posix_spawn("/bin/sh", ["sh", "-c", "sleep 1000 & sleep 1000"], os.environ, setpgroup=0)
    board.recorder(0).program_began(pid, 0)
    end_program(board, 0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    wait_for(lambda: not lives(pid), what="its end")
    end_program(board, 0)
    board.close()


def test_what_the_keeper_kills_for_memory_is_out_of_memory(root: Path, tmp_path: Path) -> None:
    """Whatever its peak was, and the next job is not blamed."""
    board = Board.create(tmp_path / "b", 1)
    line = "[ $JOB_INDEX = 2 ] && echo 1 || { touch " + f"{tmp_path}/up; sleep 60; }}"

    begun: list[int] = []

    class Killing(Recorder):
        """Kills the first program as the main process does."""

        def program_began(self, pid: int, limit_kb: int) -> None:
            """Note it, and kill it at its first job."""
            super().program_began(pid, limit_kb)
            assert limit_kb == 4 * 2**20
            begun.append(pid)
            if len(begun) == 1:
                wait_for((tmp_path / "up").exists)
                board.note_memory(0)
                end_program(board, 0)

    recorder = board.recorder(0)
    recorder.__class__ = Killing
    _, work, records = run(root, line, 2, recorder=recorder, memory_limit_mb=4096)
    assert [JobState(code) for code in records["state"]] == [JobState.OUT_OF_MEMORY, JobState.COMPLETED]
    assert records["signal"].tolist() == [9, 0]
    assert "at its memory limit of 4096 MB" in work.failures[1]


def test_no_limit_runs_while_its_logs_are_kept(
    root: Path, tmp_path: Path, guard: Guard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither on the board nor as an alarm: the program is over, and a volume may take its time."""
    board = Board.create(tmp_path / "c", 1)
    seen = []

    def keep(*_: object) -> None:
        progress = board.progress(0)
        seen.append((progress.job, progress.limit_seconds, signal.getitimer(signal.ITIMER_REAL)[0]))

    monkeypatch.setattr(Logs, "keep", keep)
    run(root, "echo said >&2", 2, recorder=board.recorder(0), guard=guard, time_limit_seconds=3600.0)
    assert seen == [(1, 0.0, 0.0), (2, 0.0, 0.0)]
    board.close()
