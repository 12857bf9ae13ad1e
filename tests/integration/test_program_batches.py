"""Batches of a program on real workers: the same bytes however they run, and nothing left behind when a slot dies."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from common import queue
from common.audit import audit, verify
from common.batch import BatchSpec, JobState, Reason
from common.control import Controller
from common.ledger import Connection, batches, table
from common.ledger.table import record_dtype
from common.options import read_options
from common.programs.files import stamped
from common.programs.program import Program
from common.submission import Submitter
from services.worker.board import Board
from tests.conftest import StartWorker
from tests.support import Running, counted, differences, files, wait_for
from tests.unit.programs_support import executable, lives

SEED = 42
# Draws from its seed as any program would, and says which one it is while it runs.
MODEL = """#!/bin/sh
echo $$ >> {pids}
sleep {pause}
echo "seed $1" >&2
echo "{{\\"x\\": $(($1 % 1000)), \\"y\\": $2}}"
"""


def submit(submitter: Submitter, words: Sequence[str], jobs: int, directory: Path, **options: object) -> BatchSpec:
    """A batch of a command."""
    program = Program(tuple(words), str(directory), **{k: options.pop(k) for k in ("shell",) if k in options})  # type: ignore[arg-type]
    given = read_options(options)
    return submitter.submit(jobs, SEED, options=given, program=program, outputs_of_program=("x",))


def model(home: Path, pause: float = 0.0) -> Path:
    """The program, and where it leaves its process ids."""
    return executable(home / "model", MODEL.format(pids=home / "pids", pause=pause))


def running(home: Path) -> list[int]:
    """The programs that run now."""
    if not (home / "pids").exists():
        return []
    return [pid for pid in map(int, (home / "pids").read_text().split()) if lives(pid)]


def wait_finished(connection: Connection, spec: BatchSpec, worker: Running, timeout: float = 60) -> None:
    """Wait until the batch's results files are written."""
    wait_for(
        lambda: batches.view(connection, spec.id).finished,
        timeout,
        "the end of the batch",
        lambda: (counted(connection, spec.id), worker.text()[-3000:]),
    )


def records(connection: Connection, spec: BatchSpec) -> "table.np.ndarray":
    """The job table."""
    return table.page(connection, spec.id, 1, spec.jobs, record_dtype(spec.outputs))


def board(worker: Running, slots: int) -> Board:
    """What the worker's slots are at."""
    found = next(worker.log.parent.glob("batchsim-worker-*/board"))
    return Board(found, slots)


@pytest.mark.parametrize("mode", ["files", "packed"])
def test_a_batch_of_a_program(
    submitter: Submitter, connection: Connection, root: Path, home: Path, worker: StartWorker, mode: str
) -> None:
    """Every job completes, with logs, its own usage, and bytes that another run of the program gives again."""
    model(home)
    spec = submit(submitter, ["./model", "{seed}", "{index}"], 40, home, output_mode=mode)
    wait_finished(connection, spec, worker(slots=2))
    assert counted(connection, spec.id) == {"COMPLETED": 40}
    assert audit(connection, root, spec.id) == []
    assert verify(root, spec, sample=40) == []
    logs = root / str(spec.id) / "logs"
    assert sorted(path.name for path in logs.iterdir()) == sorted(f"{spec.id}_{i}.err" for i in range(1, 41))
    found = records(connection, spec)
    assert found["cpu"].min() > 0
    assert found["signal"].max() == found["exit"].max() == 0


def test_killed_slots_leave_no_program(
    submitter: Submitter, connection: Connection, root: Path, home: Path, worker: StartWorker
) -> None:
    """Slots are killed in the middle of programs: those end, all jobs complete, and the bytes are as without it."""
    model(home)
    words = ["./model", "{seed}", "{index}"]
    calm = submit(submitter, words, 30, home)
    started = worker(slots=2)
    wait_finished(connection, calm, started)
    (home / "pids").unlink()
    # They go on until we say so, or are killed.
    waits = f"0.05; until [ -e {home}/calm ]; do sleep 0.05; done"
    executable(home / "model", MODEL.format(pids=home / "pids", pause=waits))
    spec = submit(submitter, words, 30, home, crash_limit=100)
    slots = board(started, 2)
    for _ in range(3):
        wait_for(lambda: any(slots.program(i).group for i in range(2)), what="a program")
        index = next((i for i in range(2) if slots.program(i).group), 0)
        group, slot = slots.program(index).group, slots.read(index).pid
        os.kill(slot, signal.SIGKILL)
        wait_for(lambda slot=slot, index=index: slots.read(index).pid not in (0, slot), what="the slot's successor")
        wait_for(lambda group=group: not group or not lives(group), what="the end of its program")
    slots.close()
    (home / "calm").touch()
    wait_finished(connection, spec, started)
    assert counted(connection, spec.id) == {"COMPLETED": 30}
    assert batches.view(connection, spec.id).crashes >= 1
    assert differences(files(root / str(spec.id)), files(root / str(calm.id))) == []
    assert audit(connection, root, spec.id) == []
    wait_for(lambda: running(home) == [], what="the programs' end")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_a_worker_that_ends_takes_its_programs_along(
    submitter: Submitter, connection: Connection, home: Path, worker: StartWorker, number: signal.Signals
) -> None:
    """Also when they would go on for ever, and the grace is short."""
    model(home, pause=1000)
    spec = submit(submitter, ["./model", "{seed}", "{index}"], 4, home)
    started = worker(slots=2, SHUTDOWN_GRACE_SECONDS=0.5)
    wait_for(lambda: len(running(home)) == 2, what="two programs", state=started.text)
    started.signal(number)
    started.wait(30)
    wait_for(lambda: running(home) == [], what="the programs' end")
    assert counted(connection, spec.id).keys() <= {"PENDING", "RUNNING"}, batches.failures(connection, spec.id)


def test_each_end_has_its_reason(
    submitter: Submitter, connection: Connection, root: Path, home: Path, worker: StartWorker
) -> None:
    """State, reason, exit code, signal and text; a retry helps the one that a second attempt helps."""
    eat = f"{sys.executable} -S -c 'bytearray(2**30)'"
    fill = "import mmap, time; m = mmap.mmap(-1, 2**29); [m.write(bytes(2**20)) for _ in range(400)]; time.sleep(60)"
    share = f"{sys.executable} -S -c '{fill}'"
    line = f"""case $JOB_INDEX in
        1) echo 1;; 2) echo sad >&2; exit 3;; 3) kill -SEGV $$;; 4) sleep 60;; 5) {eat};; 6) echo hello;;
        7) [ $JOB_ATTEMPT = 2 ] && echo 7;; 8) {share};;
    esac"""
    spec = submit(
        submitter, [line], 8, home, shell=True, time_limit_seconds=12, memory_limit_mb=200, retries=1,
        retry_delay_seconds=0.1,
    )  # fmt: skip
    wait_finished(connection, spec, worker(slots=2))
    found = [
        (JobState(r["state"]).name, Reason(r["reason"]).name, int(r["exit"]), int(r["signal"]), int(r["attempt"]))
        for r in records(connection, spec)
    ]
    assert found == [
        ("COMPLETED", "NONE", 0, 0, 1),
        ("FAILED", "NonZeroExitCode", 3, 0, 2),
        ("FAILED", "RaisedSignal", 0, 11, 2),
        ("TIMEOUT", "TimeLimit", 0, 0, 1),
        ("OUT_OF_MEMORY", "OutOfMemory", 1, 0, 1),
        ("FAILED", "NoResult", 0, 0, 2),
        ("COMPLETED", "NONE", 0, 0, 2),
        ("OUT_OF_MEMORY", "OutOfMemory", 0, 9, 1),
    ]
    texts = batches.failures(connection, spec.id)
    assert texts[2].splitlines()[-1] == "The program ended with exit code 3: sad"
    assert "signal 11 (SIGSEGV)" in texts[3]
    assert "Its last line is 'hello'" in texts[6]
    assert "memory limit of 200 MB" in texts[8]
    names = {path.name for path in (root / str(spec.id) / "logs").iterdir()}
    assert {f"{spec.id}_2.err", f"{spec.id}_2.2.err", f"{spec.id}_6.out", f"{spec.id}_6.2.out"} <= names


def test_a_program_that_goes_away(
    submitter: Submitter, connection: Connection, home: Path, worker: StartWorker
) -> None:
    """Its jobs fail and say so; those of another batch complete."""
    path = model(home)
    gone = submit(submitter, ["./model", "{seed}", "{index}"], 3, home)
    path.unlink()
    other = submit(submitter, ["/bin/echo", "{index}"], 3, home)
    started = worker()
    wait_finished(connection, gone, started)
    wait_finished(connection, other, started)
    assert counted(connection, gone.id) == {"FAILED": 3}
    assert "model" in batches.failures(connection, gone.id)[1]
    assert counted(connection, other.id) == {"COMPLETED": 3}


@pytest.mark.skipif(not shutil.which("gcc"), reason="needs a C compiler")
def test_a_program_in_c(
    submitter: Submitter, connection: Connection, root: Path, home: Path, worker: StartWorker
) -> None:
    """Compiled, swept and seeded; the same on one slot and on two workers."""
    source = '#include <stdio.h>\nint main(int n, char **a) { printf("{\\"x\\": %s.5}\\n", a[1]); return n != 2; }'
    (home / "m.c").write_text(source, encoding="utf-8")
    subprocess.run(["gcc", "-o", home / "m", home / "m.c"], check=True)
    started = worker(slots=1)
    spec = submit(submitter, ["./m", "{seed31}"], 100, home)
    wait_finished(connection, spec, started)
    worker(slots=2)
    again = submit(submitter, ["./m", "{seed31}"], 100, home)
    wait_finished(connection, again, started)
    assert counted(connection, again.id) == counted(connection, spec.id) == {"COMPLETED": 100}
    found = files(root / str(spec.id))
    assert differences(found, files(root / str(again.id))) == []
    assert len(set(found.values())) == 100


def test_a_program_that_changes_in_the_middle(
    submitter: Submitter, connection: Connection, root: Path, home: Path, worker: StartWorker
) -> None:
    """No job of the new one counts: what had completed stays, and the rest fails and says why."""
    text = "#!/bin/sh\nsleep 0.2\necho '{\"x\": %d}'\n"
    executable(home / "m", text % 1)
    program = stamped(Program(("./m",), str(home)))
    spec = submitter.submit(200, SEED, program=program, outputs_of_program=("x",))
    started = worker(slots=2)
    wait_for(lambda: counted(connection, spec.id).get("COMPLETED", 0) >= 10, 30, "some jobs", started.text)
    executable(home / "new", text % 2).replace(home / "m")
    wait_finished(connection, spec, started)
    states = counted(connection, spec.id)
    assert states.keys() == {"COMPLETED", "FAILED"}
    assert sum(states.values()) == 200
    assert set(files(root / str(spec.id)).values()) == {b"x\r\n1\r\n"}
    assert any("has changed" in text for text in batches.failures(connection, spec.id).values())
    assert audit(connection, root, spec.id) == []


def test_a_job_that_was_cancelled_while_it_ran_has_a_second_attempt(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, home: Path, worker: StartWorker
) -> None:
    """The log of the first stays, and the program is told which one it is."""
    line = f"echo began $SLURM_RESTART_COUNT >&2; touch {home}/began; [ $JOB_ATTEMPT = 2 ] || sleep 1000; echo 5"
    spec = submit(submitter, [line], 1, home, shell=True)
    started = worker(slots=1)
    wait_for((home / "began").exists, what="the program", state=started.text)
    controller = Controller(connection, queue.make_app(redis_url), root)
    assert controller.cancel(spec.id) == 1
    wait_finished(connection, spec, started)
    first = root / str(spec.id) / "logs" / f"{spec.id}_1.err"
    wait_for(first.exists, what="its log")
    assert controller.requeue(spec.id, [JobState.CANCELLED]) == 1
    wait_finished(connection, spec, started)
    assert counted(connection, spec.id) == {"COMPLETED": 1}
    assert records(connection, spec)["attempt"].tolist() == [2]
    assert (first.read_text(), first.with_suffix(".2.err").read_text()) == ("began 0\n", "began 1\n")
