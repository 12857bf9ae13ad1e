"""What a job's program is told: seed, index, parameters, environment, directory; and what it may take."""

import itertools
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import settings
from common.batch import BatchSpec, JobState, Reason
from common.errors import InvalidInput
from common.jobs import Jobs
from common.programs import environment, process
from common.programs.failure import ProgramFailed
from common.programs.memory import group_kb
from common.programs.placeholders import OWN, Command, check, text
from common.programs.program import Program
from common.programs.running import ProgramJobs
from common.seeds import Streams, seed31
from tests.unit.programs_support import jobs_of, spec_of

LINUX = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone limits another process's memory")


@pytest.fixture
def until_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], str]:
    """Makes Python that waits until so many kB of its process were seen, however late we look."""
    real, files = process.Process._look, itertools.count()

    def lines(least_kb: int) -> str:
        seen = tmp_path / f"seen-{next(files)}"

        def look(program: process.Process) -> None:
            real(program)
            if program._peak_kb >= least_kb:
                seen.touch()

        monkeypatch.setattr(process.Process, "_look", look)
        return f"import os, time\nwhile not os.path.exists({str(seen)!r}): time.sleep(0.01)\n"

    return lines


def printed(line: str, index: int = 1, attempt: int = 1, **given: object) -> str:
    """What a shell's line puts into the column ``s``."""
    jobs = jobs_of(f'printf \'s\\n"%s"\\n\' "{line}" > $JOB_RESULT', outputs=(), **given)
    return jobs.result(index, attempt)[0].decode().removeprefix('s\n"').removesuffix('"\n')


def words(command: list[str], index: int = 1, attempt: int = 1, **given: object) -> list[str]:
    """The words of a command as the program gets them."""
    script = 'printf \'s\\n\' > $JOB_RESULT; for w in "$@"; do printf \'"%s"\\n\' "$w" >> $JOB_RESULT; done'
    jobs = jobs_of(["/bin/sh", "-c", script, "sh", *command], outputs=(), **given)
    return [line[1:-1] for line in jobs.result(index, attempt)[0].decode().splitlines()[1:]]


def test_a_seed_is_the_beginning_of_the_jobs_stream() -> None:
    """Anyone can check it with plain NumPy; the generator of a function is not disturbed."""
    streams = Streams(42)
    for index in (1, 2, 1000, 10**8):
        raw = int(np.random.Philox(key=42, counter=[0, 0, 0, index]).random_raw())
        assert streams.seed(index) == raw >> 1
        first = streams.generator(index).integers(0, 2**63)
        assert first == np.random.Generator(np.random.Philox(key=42, counter=[0, 0, 0, index])).integers(0, 2**63)


@given(st.integers(0, 2**63 - 1), st.integers(1, 10**8 - 10_000))
def test_no_two_jobs_share_a_short_seed(seed: int, first: int) -> None:
    """A permutation of the 31-bit numbers, and another one for each batch."""
    found = [seed31(seed, index) for index in range(first, first + 10_000)]
    assert len(set(found)) == len(found)
    assert 0 <= min(found) <= max(found) < 2**31
    other = {seed31(seed ^ 1, index) for index in range(first, first + 10_000)}
    # By chance one in 2**31 / 10**8 pairs.
    assert len(other & set(found)) < 10


def test_short_seeds_are_spread_evenly() -> None:
    """Each bit is set in half of them, and neighbours differ in half of their bits, within five standard errors."""
    found = np.array([seed31(42, index) for index in range(1, 10_001)], dtype=np.uint32)
    bits = (found[:, None] >> np.arange(31, dtype=np.uint32)) & 1
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / 100
    changed = (bits[1:] ^ bits[:-1]).mean()
    assert abs(changed - 0.5) < 5 * 0.5 / np.sqrt(31 * 9999)


@given(st.integers(0, 2**63 - 1), st.integers(1, 10**8 - 1))
def test_seeds_have_63_bits(seed: int, index: int) -> None:
    """For every batch, and neighbours differ."""
    streams = Streams(seed)
    found = streams.seed(index)
    assert 0 <= found < 2**63
    assert found != streams.seed(index + 1)


def test_a_hundred_thousand_seeds_are_distinct() -> None:
    """In 32 bits some pair is expected to meet."""
    streams = Streams(7)
    assert len({streams.seed(index) for index in range(1, 100_001)}) == 100_000


def test_what_a_job_has_of_its_own() -> None:
    """In the command and in the environment, the same."""
    seed = Streams(5).seed(3)
    command = ["{seed}", "{seed31}", "{index}", "{task}", "{attempt}", "{batch}", "{{x}}", "a{index}b{index}"]
    own = [str(seed), str(seed31(5, 3)), "3", "4", "2", "7", "{x}", "a3b3"]
    assert words(command, 3, 2, array="0-18:2") == own
    names = (
        "$JOB_SEED $JOB_SEED31 $JOB_INDEX $SLURM_ARRAY_TASK_ID $JOB_ATTEMPT $SLURM_RESTART_COUNT $SLURM_ARRAY_JOB_ID"
    )
    assert printed(names, 3, 2, array="0-18:2") == f"{seed} {seed31(5, 3)} 3 4 2 1 7"
    names = "$SLURM_JOB_ID $SLURM_ARRAY_TASK_COUNT $SLURM_ARRAY_TASK_MIN $SLURM_ARRAY_TASK_MAX $SLURM_JOB_NAME"
    assert printed(names, 3, array="0-18:2", name="try") == "7_4 10 0 18 try"
    assert printed("$SLURM_ARRAY_TASK_ID $SLURM_ARRAY_TASK_COUNT $SLURM_ARRAY_TASK_MAX", 3) == "3 10 10"
    assert printed("$SLURM_SUBMIT_DIR", directory="/usr") == "/usr"


def test_parameters_are_words_and_variables() -> None:
    """As JSON writes them, text as it is; no shell sees them."""
    given = {"x": 0.1, "n": 3, "on": True, "name": "a b; $HOME", "big": 1e300}
    found = words(["{x}", "{n}", "{on}", "{name}", "--x={x}/{n}", "{big}"], parameters=given)
    assert found == ["0.1", "3", "true", "a b; $HOME", "--x=0.1/3", "1e+300"]
    assert printed("$PARAM_X $PARAM_N $PARAM_ON $PARAM_NAME", parameters=given) == "0.1 3 true a b; $HOME"


def test_a_shells_line_is_taken_as_it_is() -> None:
    """Its braces are its own."""
    assert jobs_of("f() { echo ${JOB_INDEX}; }; f").result(4)[1] == (4.0,)


def test_sweeps_and_common_random_numbers() -> None:
    """Each job has its point; with common random numbers the same replication has the same seed at each."""
    sweep = {"mode": "grid", "axes": {"x": [1, 2]}, "replications": 3, "common_random_numbers": True}
    found = [words(["{x}", "{seed}"], index, sweep=sweep, jobs=6) for index in range(1, 7)]
    assert [point for point, _ in found] == ["1"] * 3 + ["2"] * 3
    seeds = [seed for _, seed in found]
    assert seeds[:3] == seeds[3:]
    assert len(set(seeds)) == 3
    assert words(["{seed}"], 4) != words(["{seed}"], 1)


def test_secrets_are_not_handed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the worker's environment a program has all but what would open the ledger or the API."""
    values = {name.upper(): f"hush-{number}" for number, name in enumerate(settings.SECRETS)}
    values |= {f"{name}_FILE": "/run/hush" for name in values}
    values |= {"REDIS_URL": "redis://:hush@host/0", "BATCHSIM_BOARD": "/hush:2", "HARMLESS": "kept"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    found = jobs_of("env | grep hush >&2; echo $HARMLESS >&2; exit 1")
    with pytest.raises(ProgramFailed, match="kept") as caught:
        found.result(1)
    assert "hush" not in str(caught.value).split("\n", 1)[1]
    assert b"PATH" in environment.inherited()


def test_the_job_directory_is_empty_for_each(tmp_path: Path) -> None:
    """Whatever the one before has left there, even closed directories, or none at all."""
    leave = "mkdir -p $JOB_DIR/a/b && touch $JOB_DIR/a/b/c $JOB_DIR/.d && chmod 0 $JOB_DIR/a"
    line = f"ls -A $JOB_DIR | wc -l; [ $JOB_INDEX = 2 ] && rm -r $JOB_DIR || {{ {leave}; }}"
    jobs = ProgramJobs(spec_of(f"n=$({line}); echo $n"), scratch=tmp_path / "own")
    for index in (1, 2, 3, 2, 2):
        assert jobs.result(index)[1] == (0.0,)
    assert list((tmp_path / "own").iterdir()) == []
    jobs.close()
    found = jobs_of("echo 1")
    made = Path(found._scratch.path)
    assert made.is_dir()
    found.close()
    assert not made.exists()


def test_a_result_does_not_depend_on_attempt_or_time() -> None:
    """The same bytes twice, and by another object."""
    command = ["/bin/echo", '{{"x": {seed}}}']
    first = jobs_of(command).result(3)
    assert first == jobs_of(command).result(3, attempt=2) == Jobs(spec_of(command)).result(3)
    assert first[0] == b"x\r\n%d\r\n" % Streams(5).seed(3)


@LINUX
def test_a_memory_eater_is_out_of_memory() -> None:
    """It gets no more than its limit, and says so itself."""
    eat = [sys.executable, "-S", "-c", "x = bytearray(2**30); print(1)"]
    with pytest.raises(ProgramFailed, match="at its memory limit of 64 MB") as caught:
        jobs_of(eat, memory_limit_mb=64).result(1)
    assert (caught.value.state, caught.value.reason) == (JobState.OUT_OF_MEMORY, Reason.OutOfMemory)
    assert jobs_of(eat, memory_limit_mb=2048).result(1)[1] == (1.0,)


def test_what_is_said_for_want_of_memory_is_heard() -> None:
    """On either stream; without a limit it is a failure like any other, and its last words are shown."""
    for words in (
        "tail: memory exhausted", "forrtl: severe (41): insufficient virtual memory",
        "Error allocating 8000000000 bytes", "terminate called after throwing 'std::bad_alloc'",
    ):  # fmt: skip
        for stream in ("", " >&2"):
            for limit, state in (100, JobState.OUT_OF_MEMORY), (0, JobState.FAILED):
                with pytest.raises(ProgramFailed) as caught:
                    jobs_of(f'echo "{words}"{stream}; exit 1', memory_limit_mb=limit).result(1)
                assert caught.value.state is state
                assert str(caught.value).endswith(f": {words}")


@LINUX
def test_a_failure_near_the_limit_is_out_of_memory(until_seen: Callable[[int], str]) -> None:
    """Even of a program that says nothing; one that fails far from it has failed."""
    fail = "x = bytearray({} * 2**20)\n{}raise SystemExit(1)"
    for size, state in (190, JobState.OUT_OF_MEMORY), (20, JobState.FAILED):
        with pytest.raises(ProgramFailed) as caught:
            jobs_of(
                [sys.executable, "-S", "-c", fail.format(size, until_seen(size * 1024))], memory_limit_mb=200
            ).result(1)
        assert caught.value.state is state


@LINUX
def test_usage_is_the_programs_own(until_seen: Callable[[int], str]) -> None:
    """CPU time, and the most memory that it had, below and above our own; one object for all jobs."""
    spin = (
        "import time; t = time.process_time()\nwhile time.process_time() < t + 0.3: pass\n"
        + until_seen(2000)
        + "print(1)"
    )
    jobs = jobs_of([sys.executable, "-S", "-c", spin])
    used = jobs.usage
    jobs.result(1)
    assert 0.3 <= used.cpu_seconds < 0.3 + 5
    assert 2000 < used.rss_kb < 40_000
    # Where the tests' own peak is above that, it is looked at while it runs, every half second at the latest.
    hold = "x = bytearray(400 * 2**20)\n" + until_seen(401 * 1024) + "print(1)"
    large = jobs_of([sys.executable, "-S", "-c", hold])
    large.result(1)
    assert 400 * 1024 < large.usage.rss_kb < 500 * 1024
    assert jobs_of(["./no"]).usage.rss_kb == 0


@LINUX
def test_a_groups_memory_is_counted_together(tmp_path: Path) -> None:
    """A shell's child counts too."""
    seen: list[int] = []

    class Look:
        """Waits until the program is large, as the worker's main process sees it."""

        def program_began(self, pid: int, limit_kb: int) -> None:
            """Look for a while."""
            assert limit_kb == 0
            deadline = time.monotonic() + 30
            while time.monotonic() < deadline and group_kb(pid) < 100 * 1024:
                time.sleep(0.01)
            seen.append(group_kb(pid))
            process.end_group(pid)

        def program_ended(self) -> bool:
            """As if it had been killed for it."""
            return True

    line = f"{sys.executable} -S -c 'import time; x = bytearray(100 * 2**20); time.sleep(60)'; true"
    jobs = ProgramJobs(spec_of(line), watch=Look())
    with pytest.raises(ProgramFailed):
        jobs.result(1)
    assert seen[0] >= 100 * 1024


@pytest.mark.parametrize(
    ("program", "names", "text"),
    [
        (Program(("./m", "{y}"), "/"), ["x"], "{y} in '{y}' is nothing that a job has; there are seed, seed31"),
        (Program(("./m", "{}"), "/"), [], "{} in '{}'"),
        (Program(("./m", "{x"), "/"), ["x"], "single {"),
        (Program(("./m", "x}"), "/"), ["x"], "single }"),
        (Program(("./m", "{{x}"), "/"), ["x"], "single }"),
        (Program((), "/"), [], "empty"),
        (Program(("",), "/"), [], "empty"),
        (Program(("a\0b",), "/"), [], "zero byte"),
        (Program(("./m",), "/"), ["seed"], "every job has of its own"),
        (Program(("./m",), "/"), ["x", "X"], "x and X would both be PARAM_X"),
    ],
)
def test_a_command_that_cannot_be_filled_in(program: Program, names: list[str], text: str) -> None:
    """Is refused, with the field and what there is."""
    with pytest.raises(InvalidInput) as caught:
        check(program, names)
    assert text in caught.value.message
    assert caught.value.field


def test_a_command_that_can_be_filled_in() -> None:
    """Parameters, what every job has, braces, and whatever a shell's line holds."""
    check(Program(("./m", "{x}", "{{", "}}", *(f"{{{name}}}" for name in OWN)), "/"), ["x"])
    check(Program(("for i in ${a}; do {; done",), "/", shell=True), [])


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1), st.text(st.characters(codec="utf-8")))
def test_filling_in_is_exact(pieces: list[str], value: str) -> None:
    """What is not a placeholder comes through as it is, braces doubled; a value is not read again."""
    word = "{x}".join(piece.replace("{", "{{").replace("}", "}}") for piece in pieces)
    assert Command([word]).fill({"x": "{y}"}) == ["{y}".join(pieces).encode()]
    assert text("{value}") == "{value}"
    assert Command([value], verbatim=True).fill({}) == [value.encode()]


def test_a_number_that_is_another_groups_now_is_left_alone() -> None:
    """Nothing is killed outside of our own session."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], os.environ, setsid=True)
    process.end_group(pid)
    os.kill(pid, 15)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -15
    pid = os.posix_spawn("/bin/sleep", ["sleep", "100"], os.environ, setpgroup=0)
    process.end_group(pid)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
    process.end_group(pid)


def test_jobs_of_a_program_are_runs_of_it() -> None:
    """And a batch without one knows nothing of them."""
    jobs = Jobs(spec_of("echo $JOB_INDEX"))
    assert jobs.programs is not None
    assert jobs.result(3) == (b"x\r\n3\r\n", (3.0,))
    scratch = Path(jobs.programs._scratch.path)
    jobs.close()
    assert not scratch.exists()
    function = Jobs(BatchSpec(1, 1, 42))
    assert function.programs is None
    function.close()
