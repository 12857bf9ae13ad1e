"""Programs from start to end: how they fail, what they print, what they leave behind, and being told to stop."""

import contextlib
import gc
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from common.batch import JobState, Reason
from common.programs import deferral, process
from common.programs.failure import ProgramFailed
from common.programs.running import ProgramJobs
from common.programs.streams import HEAD_BYTES, TAIL_BYTES, Stream
from services.worker.guard import Guard, Interrupted, TimeLimitReached
from tests.support import wait_for
from tests.unit.programs_support import executable, jobs_of, lives, spec_of
from tests.unit.signal_at import signal_at

# By default the plug-in takes the very alarm that the guard takes.
pytestmark = pytest.mark.timeout(60, method="thread")


@pytest.fixture(params=["pidfd", "none"], autouse=True)
def _way_to_see_an_end(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the kernel's help, and without, as on macOS."""
    if request.param == "none":
        monkeypatch.delattr(os, "pidfd_open", raising=False)


def failure(command: str | list[str], directory: Path | str = "/", **given: object) -> ProgramFailed:
    """How job 1 fails."""
    with pytest.raises(ProgramFailed) as caught:
        jobs_of(command, directory, **given).result(1)
    return caught.value


def test_an_exit_code_is_a_failure() -> None:
    """With command line, code, and the last lines of stderr; the last line is the shortest account."""
    found = failure(["/bin/sh", "-c", "echo first >&2; echo 'it broke' >&2; exit 3"])
    assert (found.state, found.reason, found.exit_code, found.signal) == (
        JobState.FAILED,
        Reason.NonZeroExitCode,
        3,
        0,
    )
    assert str(found).startswith("$ /bin/sh -c 'echo first")
    assert "first\nit broke\n" in str(found)
    assert str(found).endswith("exit code 3: it broke")


def test_a_signal_is_a_failure() -> None:
    """Of a program that kills itself."""
    found = failure("kill -SEGV $$")
    assert (found.state, found.reason, found.exit_code, found.signal) == (JobState.FAILED, Reason.RaisedSignal, 0, 11)
    assert "signal 11 (SIGSEGV)" in str(found)


@pytest.mark.parametrize(
    ("command", "text", "code"),
    [
        (["./model"], "is not there on this worker: {directory}/model", 127),
        (["no-such-program-1"], "is not there on this worker: no-such-program-1, in PATH", 127),
        (["./plain"], "is not executable: {directory}/plain", 126),
        (["./folder"], "is not executable: {directory}/folder", 126),
        (["./nothing"], "no program for this machine", 126),
        (["./stray"], "names after #! is not there", 126),
        (["/bin/echo", "a\0b"], "could not be started", 126),
        (["/bin/echo", "a" * 2**18], "Argument list too long", 126),
    ],
)
def test_a_program_that_cannot_be_started(tmp_path: Path, command: list[str], text: str, code: int) -> None:
    """The text says which, and why."""
    (tmp_path / "plain").write_text("hello", encoding="utf-8")
    (tmp_path / "folder").mkdir()
    executable(tmp_path / "nothing", "hello\n")
    executable(tmp_path / "stray", "#!/no/such/interpreter\n")
    found = failure(command, tmp_path)
    assert text.format(directory=tmp_path) in str(found)
    assert (found.state, found.reason, found.exit_code) == (JobState.FAILED, Reason.NonZeroExitCode, code)


def test_a_directory_that_is_not_there(tmp_path: Path) -> None:
    """A worker may lack what the client has."""
    assert "is not there on this worker" in str(failure(["/bin/echo", "1"], tmp_path / "gone"))


def test_it_is_started_in_its_directory(tmp_path: Path) -> None:
    """A relative path is relative to it; and we stay where we are."""
    executable(tmp_path / "here", "#!/bin/sh\nls\necho 3\n")
    (tmp_path / "sub").mkdir()
    before = Path.cwd()
    for command, directory in (["./here"], tmp_path), (["../here"], tmp_path / "sub"):
        assert jobs_of(command, directory).result(1)[1] == (3.0,)
        assert Path.cwd() == before
    jobs_of("touch made; echo 1", tmp_path).result(1)
    assert (tmp_path / "made").exists()


def test_too_much_is_killed() -> None:
    """Of 1 GB only 64 MiB are read, and what is kept is small."""
    started = time.monotonic()
    found = failure("yes 'this is much' | head -c 1000000000; echo 1")
    assert "more than 64 MiB on stdout and was killed" in str(found)
    assert time.monotonic() - started < 20
    assert "on stderr" in str(failure("yes >&2"))


def test_much_is_read_to_the_end() -> None:
    """A result after megabytes, and a megabyte on stderr before a failure."""
    assert jobs_of("yes abc | head -c 8000000; echo; echo 5").result(1)[1] == (5.0,)
    found = failure("yes abc | head -c 1048576 >&2; echo 'the end' >&2; exit 1")
    assert str(found).endswith("exit code 1: the end")
    assert len(str(found)) < 4000


def test_a_stream_keeps_both_ends() -> None:
    """What lies between is counted and left out; nothing is when it fits."""
    small, large = Stream(), Stream()
    given = bytes(range(256)) * (HEAD_BYTES // 256 + 200)
    small.add(given)
    assert small.text() == small.end() == given
    for start in range(0, 10 * len(given), 9999):
        large.add((10 * given)[start : start + 9999])
    text = large.text()
    assert text.startswith(given[:HEAD_BYTES])
    assert text.endswith(large.end())
    assert large.end() == (10 * given)[-TAIL_BYTES:]
    assert b"[... %d bytes are left out" % (10 * len(given) - HEAD_BYTES - TAIL_BYTES) in text


def test_text_that_is_no_utf8() -> None:
    """Neither in the result's way nor in a failure's."""
    assert jobs_of('printf \'\\377\\n\'; echo \'{"x": 1, "s": "é"}\'').result(1)[0] == "x,s\r\n1,é\r\n".encode()
    assert "�" in str(failure("printf '\\377' >&2; exit 1"))
    assert "no result" in str(failure('printf \'{"x": "\\377"}\''))


def test_a_grandchild_that_holds_stdout_holds_nothing_up(tmp_path: Path) -> None:
    """It is killed with its group."""
    started = time.monotonic()
    assert jobs_of(f"sleep 1000 & echo $! > {tmp_path}/pid; echo 2").result(1)[1] == (2.0,)
    assert time.monotonic() - started < 10
    pid = int((tmp_path / "pid").read_text())
    wait_for(lambda: not lives(pid), what="the grandchild's end")


def test_a_daemon_does_not_hold_the_job_up(tmp_path: Path) -> None:
    """What takes a session of its own outlives the job, even if it goes on to write."""
    daemon = f"echo $$ > {tmp_path}/pid; while echo y; do sleep 0.01; done"
    line = f"setsid sh -c '{daemon}' & while [ ! -s {tmp_path}/pid ]; do sleep 0.01; done"
    started = time.monotonic()
    jobs_of(f"{line}; echo 2", outputs=()).result(1)
    assert time.monotonic() - started < 10
    pid = int((tmp_path / "pid").read_text())
    # Nobody reads what it writes.
    wait_for(lambda: not lives(pid), what="the end of a daemon that writes into a closed pipe")


def test_streams_that_are_closed_are_no_end(tmp_path: Path) -> None:
    """A program may close both and go on."""
    jobs_of(f"exec >&- 2>&-; sleep 0.3; touch {tmp_path}/done", outputs=()).result(1)
    assert (tmp_path / "done").exists()


@pytest.mark.parametrize("trap", ["", "trap '' TERM;"])
def test_at_the_time_limit_it_is_ended(guard: Guard, tmp_path: Path, trap: str) -> None:
    """Also one that ignores SIGTERM, and all that it has started."""
    jobs = jobs_of(
        f"{trap} sleep 1000 & echo $$ $! > {tmp_path}/pids; kill -ALRM $PPID; wait; while :; do sleep 1; done"
    )
    started = time.monotonic()
    with pytest.raises(TimeLimitReached):
        guard.run(jobs.result, 1, 1, 60.0)
    assert time.monotonic() - started < 50
    for pid in (tmp_path / "pids").read_text().split():
        wait_for(lambda pid=pid: not lives(int(pid)), what=f"the end of {pid}")
    assert jobs_of("echo 1").result(1)[1] == (1.0,)


def test_it_can_clean_up_when_it_is_told_to_stop(guard: Guard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has a moment between SIGTERM and SIGKILL."""
    monkeypatch.setattr(process, "GRACE_SECONDS", 30.0)
    jobs = jobs_of(f"trap 'echo bye > {tmp_path}/said; exit' TERM; kill -ALRM $PPID; while :; do sleep 0.05; done")
    with pytest.raises(TimeLimitReached):
        guard.run(jobs.result, 1, 1, 60.0)
    assert (tmp_path / "said").read_text() == "bye\n"


def test_it_is_ended_when_its_job_is_not_ours_any_more(guard: Guard) -> None:
    """The signal of the worker's main process."""
    jobs = jobs_of("kill -USR1 $PPID; sleep 1000")
    with pytest.raises(Interrupted):
        guard.run(jobs.result, 1, 1, 0.0)


def test_signals_are_as_every_program_expects_them() -> None:
    """Nothing is blocked, and what Python ignores is not ignored."""
    with pytest.raises(ProgramFailed) as caught:
        jobs_of(["/bin/grep", "-E", "SigBlk|SigIgn", "/proc/self/status"]).result(1)
    # The last line is shown. The C library keeps the signals 32 and 33 to itself.
    assert any(f"SigIgn:\\t{mask:016x}'" in str(caught.value) for mask in (0, 0x180000000))
    assert jobs_of(["/bin/grep", "-c", "SigBlk:.0000000000000000", "/proc/self/status"]).result(1)[1] == (1.0,)


def test_it_has_no_file_of_ours() -> None:
    """Nothing but its three streams, and stdin is empty."""
    program = "import os, sys; print(len(sys.stdin.read() or os.listdir('/proc/self/fd')))"
    ours = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(ours, True)
    # The fourth is what lists them.
    assert jobs_of([sys.executable, "-S", "-c", program]).result(1)[1] == (4.0,)
    os.close(ours)


def test_nothing_is_left_open() -> None:
    """Whether it succeeds, fails, or cannot be started."""
    jobs = jobs_of("[ $JOB_INDEX = 1 ] && echo 1")
    missing = jobs_of(["./no"])
    jobs.result(1)
    # What earlier tests have left to be collected is closed at any moment.
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    for index in (1, 2, 1, 2):
        for each in (jobs, missing):
            fails = index == 2 or each is missing
            with pytest.raises(ProgramFailed) if fails else contextlib.nullcontext():
                each.result(index)
    assert set(os.listdir("/proc/self/fd")) <= before
    jobs.close()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


class Noted(process.Unwatched):
    """Remembers each program that began."""

    def __init__(self) -> None:
        self.began: list[int] = []

    def program_began(self, pid: int, limit_kb: int) -> None:
        """Remember it."""
        self.began.append(pid)


# It starts some 600 programs.
@pytest.mark.timeout(600, method="thread")
def test_nothing_is_left_whenever_a_signal_comes(guard: Guard) -> None:
    """Before any instruction: the program is gone with its group, its exit code taken, and the next one runs.

    Also while another thread takes what the main thread has masked.
    """
    noted, traced = Noted(), (process.__file__, deferral.__file__)
    jobs = ProgramJobs(spec_of("sleep 1000 & echo 2"), watch=noted)
    jobs.result(2)
    gc.collect()
    before = set(os.listdir("/proc/self/fd"))
    at = interrupted = 0
    leave = threading.Event()
    other = threading.Thread(target=leave.wait)
    other.start()
    try:
        while at == interrupted:
            came, raised = signal_at(signal.SIGUSR1, at, lambda code: code.co_filename in traced), False
            try:
                with came:
                    guard.run(jobs.result, 2, 1, 0.0)
            except Interrupted:
                raised = True
            assert raised == came.sent, f"at instruction {at}"
            assert (deferral.deferral._on, deferral.deferral._late) == (False, [])
            at, interrupted = at + 1, interrupted + came.sent
            for pid in noted.began:
                with pytest.raises(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)
            noted.began.clear()
            assert set(os.listdir("/proc/self/fd")) <= before, f"at instruction {at}"
            assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    finally:
        leave.set()
        other.join()
    assert at > 100, at
    assert jobs.result(2)[1] == (2.0,)
    jobs.close()
