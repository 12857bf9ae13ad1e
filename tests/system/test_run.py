"""``batchsim run`` as a user types it: its files, its words, its exit codes, and that it leaves nothing behind."""

import contextlib
import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support import (
    Running,
    differences,
    environment,
    expected_csv,
    expected_files,
    files,
    python,
    start,
    wait_for,
)

BATCHSIM = python("-m", "batchsim")
# The promise is 2 s; the rest is for slow machines.
INTERRUPT_SECONDS = 4.0
LONG = 2_000_000

Run = Callable[..., Running]


@pytest.fixture
def run(redis_binary: str, home: Path, processes: list[Running]) -> Run:
    """Starts ``batchsim`` with arguments and environment variables in an empty directory."""

    def begin(*arguments: str, **settings: object) -> Running:
        running = start([*BATCHSIM, *arguments], environment(PWD=home, **settings), home, f"run-{len(processes)}")
        processes.append(running)
        return running

    return begin


@pytest.fixture(autouse=True)
def nothing_left(home: Path) -> Iterator[None]:
    """After the test nothing that it started is left: no process, no private directory."""
    before = directories()
    yield
    wait_for(
        lambda: not processes_of(home) and not abandoned(before),
        60,
        "the removal of what was started",
        lambda: (processes_of(home), abandoned(before)),
    )


def directories() -> set[str]:
    """Private directories of embedded forms on this machine, other people's too; not those of single programs' jobs."""
    found = {str(path) for path in Path("/tmp").glob("batchsim-*") if path.is_dir()}
    return {path for path in found if not path.startswith("/tmp/batchsim-jobs-")}


def abandoned(before: set[str]) -> set[str]:
    """New private directories that no process works in."""
    commands = " ".join(found for found in everything("cmdline").values())
    return {path for path in directories() - before if path not in commands}


def processes_of(home: Path) -> dict[int, str]:
    """Processes that descend from this test's, whoever their parent is now: they all have its directory as PWD."""
    commands = everything("cmdline")
    return {pid: commands.get(pid, "") for pid, text in everything("environ").items() if f"PWD={home}" in text}


def everything(what: str) -> dict[int, str]:
    """For every process what this file of /proc says."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found[int(path.name)] = (path / what).read_bytes().replace(b"\0", b" ").decode(errors="replace")
    return found


def summary(running: Running) -> dict[str, str]:
    """The table at the end, as words."""
    rows = re.findall(r"│ (.*?) +│ (.*?) +│", running.text())
    return dict(rows)


def test_five_jobs(run: Run, home: Path) -> None:
    """Five jobs: exit code 0, five files as plain NumPy gives them, batch.json, and a table that says so."""
    running = run("run", "--num-jobs", "5", "--seed", "42")
    assert running.wait() == 0, running.text()
    assert differences(files(home / "outputs"), expected_files(42, 5)) == []
    assert json.loads((home / "outputs" / "batch.json").read_text())["seed"] == 42
    rows = summary(running)
    assert (rows["jobs COMPLETED"], rows["seed"]) == ("5", "42"), running.text()
    assert "COMPLETED" in running.text()
    assert "Traceback" not in running.text()


def test_output_and_messages_are_apart(home: Path, redis_binary: str) -> None:
    """The table is all that is on standard output; progress and logs are on standard error."""
    done = subprocess.run(
        [*BATCHSIM, "run"], env=environment(PWD=home), cwd=home, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.startswith("Batch 1: COMPLETED")
    assert "{" not in done.stdout
    # Any of them: a job is logged after its commit, and at the last one all may be over before that.
    assert any(f"Job {index} completed: outputs/job_{index}.csv" in done.stderr for index in range(1, 6))


def test_again(run: Run, home: Path) -> None:
    """The same seed gives the same files; the first run's move to outputs/<id>/; settings come from the environment."""
    assert run("run", NUM_JOBS=70, SEED=7, OUTPUT_DIR="o").wait() == 0
    assert run("run", NUM_JOBS=70, SEED=7, OUTPUT_DIR="o").wait() == 0
    wanted = expected_files(7, 70)
    assert differences(files(home / "o"), wanted) == []
    assert differences(files(home / "o" / "1"), wanted) == []
    (home / ".env").write_text("NUM_JOBS=3\nSEED=8\nOUTPUT_DIR=o\n")
    assert run("run").wait() == 0
    assert differences(files(home / "o"), expected_files(8, 3)) == []
    assert json.loads((home / "o" / "2" / "batch.json").read_text())["id"] == 2


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupt(run: Run, home: Path, number: signal.Signals, code: int) -> None:
    """Ctrl-C and SIGTERM end it within two seconds; what is done is whole, and the last line says how to go on."""
    tries = []
    # The best of three, for the machine may stand still; what else is promised holds each time.
    while len(tries) < 3 and min(tries, default=INTERRUPT_SECONDS) >= INTERRUPT_SECONDS:
        tries.append(interrupted(run, home / f"outputs-{len(tries)}", number, code))
    assert min(tries) < INTERRUPT_SECONDS, tries


def interrupted(run: Run, place: Path, number: signal.Signals, code: int) -> float:
    """Interrupt a batch in its midst; returns how many seconds its end took."""
    running = run("run", NUM_JOBS=LONG, SEED=5, OUTPUT_DIR=place.name)
    # Not only the first file: before all is published nobody can say how many jobs are done.
    wait_for(lambda: (place / "job_1.csv").exists() and "slots, seed" in running.text(), 60, "a batch", running.text)
    begin = time.monotonic()
    running.signal(number)
    assert running.wait() == code, running.text()
    seconds = time.monotonic() - begin
    assert_whole(files(place))
    assert re.search(rf"Interrupted: [\d,]+ of {LONG:,} jobs are done", running.text())
    assert "Traceback" not in running.text()
    return seconds


def assert_whole(found: dict[str, bytes]) -> None:
    """Some of the batch's files are there, and none of them half."""
    indices = [int(name[4:-4]) for name in found]
    assert 0 < len(found) < LONG
    sample = sorted(indices)[:300] + sorted(indices)[-300:]
    assert all(found[f"job_{index}.csv"] == expected_csv(5, index) for index in sample)
    assert {len(data.splitlines()) for data in found.values()} == {2}


def in_main(running: Running) -> bool:
    """Before main() has taken SIGTERM, an interrupt is Python's own affair."""
    caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{running.pid}/status").read_text())
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


@pytest.mark.parametrize("delay", [0.4, 0.8, 1.2])
def test_early_interrupt(run: Run, delay: float) -> None:
    """Ctrl-C at any moment of the start ends it cleanly: exit code 130, no traceback, nothing left."""
    running = run("run", NUM_JOBS=LONG)
    # The moment is what is tested here, so this waits for a time rather than for a condition alone.
    deadline = time.monotonic() + delay
    wait_for(lambda: time.monotonic() > deadline and in_main(running), 60, "main()", running.text)
    running.signal(signal.SIGINT)
    code = running.wait()
    assert "Traceback" not in running.text()
    assert code in (130, -signal.SIGINT), running.text()


@pytest.mark.parametrize("delay", [0.4, 0.8])
def test_early_sigterm(run: Run, delay: float) -> None:
    """SIGTERM at any moment of the start ends it without a traceback, and nothing is left."""
    running = run("run", NUM_JOBS=LONG)
    deadline = time.monotonic() + delay
    wait_for(lambda: time.monotonic() > deadline and in_main(running), 60, "main()", running.text)
    running.signal(signal.SIGTERM)
    code = running.wait()
    assert "Traceback" not in running.text()
    assert code in (143, -signal.SIGTERM), running.text()


@pytest.mark.skipif(sys.platform != "linux", reason="a parent's death is signalled on Linux only")
def test_kill_9_of_the_supervisor(run: Run, home: Path) -> None:
    """When the supervisor itself is killed, the server, the worker and its slots end by themselves."""
    running = run("run", NUM_JOBS=LONG)
    wait_for(lambda: (home / "outputs" / "job_1.csv").exists(), 60, "the first file", running.text)
    given = " ".join(text for text in everything("environ").values() if f"PWD={home}" in text)
    own = {path for path in directories() if path in given}
    assert len(own) == 1, given
    running.signal(signal.SIGKILL)
    running.wait()
    try:
        wait_for(lambda: not processes_of(home), 60, "the end of all processes", lambda: processes_of(home))
    finally:
        clean(home, own)


def clean(home: Path, own: set[str]) -> None:
    """Remove what a killed supervisor cannot: its processes, if there are any, and its directory."""
    for pid in processes_of(home):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for path in own:
        shutil.rmtree(path, ignore_errors=True)


BAD = [
    (("--num-jobs", "0"), "NUM_JOBS=0"),
    (("--num-jobs", "many"), "NUM_JOBS=many"),
    (("--seed", "-1"), "SEED=-1"),
    (("--workers", "0"), "WORKERS=0"),
    (("--redis-url", "http://x"), "REDIS_URL=http://x"),
    (("--redis-url", "redis://127.0.0.1:1"), "REDIS_URL=redis://127.0.0.1:1"),
    (("--redis-url", "redis://:hunter2@127.0.0.1:1"), "REDIS_URL=redis://127.0.0.1:1"),
    (("--redis-url", "redis://127.0.0.1:port"), "REDIS_URL=redis://127.0.0.1:port"),
    (("--output-dir", "/dev/null"), "OUTPUT_DIR=/dev/null"),
    (("--api-host", "0.0.0.0"), "API_HOST=0.0.0.0"),
    (("--durability", "maybe"), "DURABILITY=maybe"),
]


@pytest.mark.parametrize(("arguments", "named"), BAD, ids=[named for _, named in BAD])
def test_bad_value(run: Run, home: Path, arguments: tuple[str, ...], named: str) -> None:
    """A wrong value is exit code 2, one line that names it, and nothing was made."""
    running = run("run", *arguments)
    assert running.wait() == 2, running.text()
    lines = running.text().splitlines()
    assert len(lines) == 1, lines
    assert named in lines[0]
    assert "hunter2" not in lines[0]
    left = [path.name for path in home.iterdir() if not path.name.endswith(".log")]
    assert left == [] or named.startswith("REDIS_URL=redis"), left


def test_unknown_option(run: Run) -> None:
    """An option that does not exist is exit code 2 with a hint."""
    running = run("run", "--nonsense", "1")
    assert running.wait() == 2
    assert "No such option" in running.text()


def test_two_runs_in_one_directory(run: Run, home: Path) -> None:
    """The second run in the same directory is refused with exit code 2 and touches nothing."""
    first = run("run", NUM_JOBS=LONG)
    wait_for(lambda: (home / "outputs" / "job_1.csv").exists(), 60, "the first file", first.text)
    specification = (home / "outputs" / "batch.json").read_text()
    second = run("run", NUM_JOBS=5)
    assert second.wait() == 2, second.text()
    assert len(second.text().splitlines()) == 1
    assert "OUTPUT_DIR=outputs" in second.text()
    assert "in use" in second.text()
    assert (home / "outputs" / "batch.json").read_text() == specification
    first.signal(signal.SIGINT)
    assert first.wait() == 130


def test_progress_lines_without_a_terminal(run: Run) -> None:
    """In a pipe or a log there is a plain line every two seconds, without control characters."""
    running = run("run", NUM_JOBS=LONG, WORKERS=1)
    pattern = rf"^\d+/{LONG} jobs, [\d,]+ jobs/s, (?:[\d,]+ s|[\d:]+) left$"
    wait_for(
        lambda: len(re.findall(pattern, running.text(), re.MULTILINE)) >= 2, 60, "two progress lines", running.text
    )
    assert "\x1b" not in running.text()
    running.signal(signal.SIGINT)
    assert running.wait() == 130


def test_bar_on_a_terminal(home: Path, redis_binary: str) -> None:
    """On a terminal there is a live bar with the count, and the table at the end."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(home)
        given = {
            **environment(PWD=home, NUM_JOBS=2_000, TERM="xterm-256color", COLUMNS=120),
            "PYTHONPATH": environment()["PYTHONPATH"],
        }
        os.execve(sys.executable, [*BATCHSIM, "run"], given)
    text = read_all(terminal)
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0, text
    assert "━" in text
    assert "2000/2000" in text
    assert "jobs COMPLETED" in text
    assert "Traceback" not in text


def read_all(terminal: int) -> str:
    """All that is written to a terminal until its last user has gone."""
    data, deadline = b"", time.monotonic() + 60
    while time.monotonic() < deadline:
        ready, _, _ = select.select([terminal], [], [], 1.0)
        if ready:
            try:
                data += os.read(terminal, 65536)
            except OSError:
                break
    os.close(terminal)
    return data.decode(errors="replace")
