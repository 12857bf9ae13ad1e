"""What is kept of a program's output, under which names, and what is not kept."""

import contextlib
import os
import socket
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import outputs
from common.batch import BatchSpec
from common.errors import InvalidInput, StorageUnavailable
from common.programs.failure import ProgramFailed
from common.programs.logs import Logs, check_patterns, expand
from common.programs.program import Program
from common.programs.running import ProgramJobs
from services.worker.guard import Guard, TimeLimitReached
from tests.unit.programs_support import spec_of

# By default the plug-in takes the very alarm that the guard takes.
pytestmark = pytest.mark.timeout(60, method="thread")
SAYS = "echo hello; echo oh >&2; echo 5"


def prepared(root: Path, line: str = SAYS, **given: object) -> tuple[BatchSpec, ProgramJobs]:
    """The jobs of a batch whose directory is there."""
    spec = spec_of(line, **given)  # type: ignore[arg-type]
    outputs.prepare(root, spec)
    return spec, ProgramJobs(spec, place=outputs.directory(root, spec))


def kept(root: Path) -> dict[str, str]:
    """The logs in the batch's directory."""
    place = root / "7" / "logs"
    return {str(path.relative_to(place)): path.read_text() for path in sorted(place.rglob("*")) if path.is_file()}


def test_each_stream_has_a_file(root: Path) -> None:
    """With the array's index in its name, and for each attempt its own."""
    _, jobs = prepared(root, array="10-28:2")
    jobs.result(2)
    jobs.result(2, attempt=2)
    jobs.result(3, attempt=11)
    out, err = "hello\n5\n", "oh\n"
    assert kept(root) == {
        "7_12.out": out, "7_12.err": err, "7_12.2.out": out, "7_12.2.err": err, "7_14.11.out": out, "7_14.11.err": err,
    }  # fmt: skip
    jobs.close()


def test_one_pattern_for_both(root: Path) -> None:
    """As Slurm without --error: one file, stdout first; the result's line too, where there is more."""
    _, jobs = prepared(root, stdout="slurm-%A_%a.out", stderr="slurm-%A_%a.out")
    jobs.result(1)
    assert kept(root) == {"slurm-7_1.out": "hello\n5\noh\n"}


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("echo 5", []),
        ("echo; echo 5", []),
        ("echo 5; echo >&2", ["7_1.err"]),
        ("echo a; echo 5", ["7_1.out"]),
        ("printf 'x\\n5\\n' > $JOB_RESULT", []),
        ("printf 'x\\n5\\n' > $JOB_RESULT; echo 5", ["7_1.out"]),
        ("exit 1", []),
        ("echo 5; exit 1", ["7_1.out"]),
        ("echo 5 >&2", ["7_1.err"]),
    ],
)
def test_nothing_is_written_when_there_is_nothing(root: Path, line: str, names: list[str]) -> None:
    """No file, and no directory."""
    _, jobs = prepared(root, line)
    with contextlib.suppress(ProgramFailed):
        jobs.result(1)
    assert list(kept(root)) == names
    assert (root / "7" / "logs").exists() == bool(names)


def test_nowhere_keeps_nothing(root: Path) -> None:
    """Of the stream that it is given for."""
    _, jobs = prepared(root, stdout="/dev/null")
    jobs.result(1)
    assert list(kept(root)) == ["7_1.err"]
    _, jobs = prepared(root, stdout="/dev/null", stderr="/dev/null")
    jobs.result(2)
    assert list(kept(root)) == ["7_1.err"]


def test_what_was_printed_before_the_time_limit_is_kept(root: Path, guard: Guard) -> None:
    """It is the only trace of what the job was at."""
    _, jobs = prepared(root, "echo began; kill -ALRM $PPID; sleep 1000")
    with pytest.raises(TimeLimitReached):
        guard.run(jobs.result, 1, 1, 60.0)
    assert kept(root) == {"7_1.out": "began\n"}


def test_bytes_are_kept_as_they_are(root: Path) -> None:
    """Whatever they are; and of much the beginning and the end."""
    _, jobs = prepared(root, "printf '\\377\\0'; yes abc | head -c 4000000; echo; echo 5; echo $$ >&2")
    jobs.result(1)
    data = (root / "7" / "logs" / "7_1.out").read_bytes()
    assert data.startswith(b"\xff\0abc\n")
    assert data.endswith(b"\n5\n")
    assert b"bytes are left out here" in data
    assert len(data) < 2**20 + 2**16 + 100


def test_once_the_batch_is_closed_nothing_comes(root: Path) -> None:
    """A worker that was away puts nothing beside the files of another batch."""
    spec, jobs = prepared(root)
    outputs.remove_staging(root, spec)
    with pytest.raises(StorageUnavailable, match="cannot be written"):
        jobs.result(1)
    assert not (root / "7" / "logs").exists()
    outputs.prepare(root, spec)
    jobs.result(1)
    outputs.remove_staging(root, spec)
    with pytest.raises(StorageUnavailable, match="cannot be written"):
        jobs.result(2)
    assert list(kept(root)) == ["7_1.err", "7_1.out"]


def test_logs_move_with_the_start_up_batch(root: Path) -> None:
    """Those of the next one begin anew."""
    _, jobs = prepared(root, startup=True)
    jobs.result(1)
    assert (root / "logs" / "7_1.out").exists()
    assert outputs.archive_startup(root)
    assert list(kept(root)) == ["7_1.err", "7_1.out"]
    assert not (root / "logs").exists()


def test_a_file_where_a_directory_should_be_is_a_failure(root: Path) -> None:
    """Trying again would not help."""
    _, jobs = prepared(root, stdout="%a", stderr="1/%a")
    with pytest.raises(ProgramFailed, match="logs/1/1 cannot be written"):
        jobs.result(1)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("%A_%a.out", "7_42.out"),
        ("%x-%j.log", "my_name-7_42.log"),
        ("%4a/%08A", "0042/00000007"),
        ("100%%", "100%"),
        ("%N", socket.gethostname().partition(".")[0]),
        ("%%a%a", "%a42"),
    ],
)
def test_patterns_are_slurms(pattern: str, path: str) -> None:
    """A name is one part of the path, whatever is in it."""
    assert expand(pattern, "my/name", 7, 42) == path


@pytest.mark.parametrize(
    ("pattern", "path"), [("%A_%a.out", "7_42.3.out"), ("%a", "42.3"), ("a.b/%a", "a.b/42.3"), (".%a", ".42.3")]
)
def test_a_later_attempt_has_its_number_before_the_suffix(pattern: str, path: str) -> None:
    """So that each attempt's is kept."""
    assert expand(pattern, "", 7, 42, attempt=3) == path


@pytest.mark.parametrize(
    "pattern",
    ["", "/tmp/x", "../x", "a/../../x", "a//b", "a/", "./a", "%", "%q", "a%", "%4", "%x/%x", "a\0", "b" * 201],
)
@pytest.mark.parametrize("field", ["stdout", "stderr"])
def test_patterns_that_are_refused(pattern: str, field: str) -> None:
    """What leads out of the directory, is not known, or is no file's name."""
    program = Program(("/bin/true",), "/", name="..", **{field: pattern})
    with pytest.raises(InvalidInput) as caught:
        check_patterns(program)
    assert caught.value.field == field


def test_patterns_that_cannot_be_side_by_side() -> None:
    """One cannot be the directory of the other."""
    with pytest.raises(InvalidInput, match="a file and a directory"):
        check_patterns(Program(("/bin/true",), "/", stdout="logs/%a", stderr="logs"))


@given(st.text(max_size=20), st.text(max_size=20))
def test_what_is_accepted_stays_inside(pattern: str, name: str) -> None:
    """Whatever the pattern and the name."""
    program = Program(("/bin/true",), "/", name=name, stdout=pattern)
    try:
        check_patterns(program)
    except InvalidInput:
        return
    if pattern == "/dev/null":
        return
    for batch, task in ((1, 1), (123456789, 0)):
        path = os.path.normpath(Path("/place/logs", expand(pattern, name, batch, task, 2)))
        assert path.startswith("/place/logs/")


def test_the_defaults_are_accepted() -> None:
    """And Slurm's."""
    check_patterns(Program(("/bin/true",), "/"))
    check_patterns(Program(("/bin/true",), "/", stdout="slurm-%A_%a.out", stderr="slurm-%A_%a.out"))
    check_patterns(Program(("/bin/true",), "/", stdout="/dev/null", stderr="/dev/null"))
    Logs(Program(("/bin/true",), "/"), 7, Path("/nowhere")).close()
