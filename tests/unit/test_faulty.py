"""The simulation whose jobs misbehave: which ones is drawn, how is chosen, and the others are as ever."""

import signal
import subprocess

import numpy as np
import pytest

from common.errors import InvalidInput
from common.jobs import ATTEMPT
from common.simulations import registry
from common.simulations.faulty import KINDS, Misbehaved, faulty, kind
from common.simulations.random_numbers import random_numbers
from tests.support import environment, python

SEED = 42


def stream(index: int) -> np.random.Generator:
    """A job's random stream."""
    return np.random.Generator(np.random.Philox(key=SEED, counter=[0, 0, 0, index]))


@pytest.fixture(autouse=True)
def first_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is left in the environment of what another test ran."""
    monkeypatch.delenv(ATTEMPT, raising=False)


def bad_jobs(jobs: int, **rates: float) -> set[int]:
    """Those that raise."""
    found = set()
    for index in range(1, jobs + 1):
        try:
            assert faulty(stream(index), **rates) == random_numbers(stream(index))
        except Misbehaved:
            found.add(index)
    return found


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 1.0])
def test_so_many_raise_and_the_others_give_what_random_numbers_gives(
    part: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part is that of a draw of each job; the same ones at every attempt."""
    bad = bad_jobs(1000, raises=part)
    assert abs(len(bad) - 1000 * part) < 60
    monkeypatch.setenv(ATTEMPT, "2")
    assert bad_jobs(1000, raises=part) == bad


def test_flaky_jobs_raise_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the first attempt only, so that one retry mends them."""
    assert 240 < len(bad_jobs(1000, flaky=0.3)) < 360
    monkeypatch.setenv(ATTEMPT, "2")
    assert bad_jobs(1000, flaky=0.3) == set()


def test_the_kinds_share_the_jobs() -> None:
    """Each kind has its own part of the draws, in the order of KINDS; what is left behaves."""
    rates = [0.1] * len(KINDS)
    assert [kind(0.1 * place + 0.05, *rates) for place in range(6)] == [*KINDS, ""]
    assert [kind(drawn, 0, 0, 0, 0, 0) for drawn in (0.0, 0.5, 0.999)] == [""] * 3
    assert kind(0.999, 0, 0, 0, 0, 1.0) == "flaky"


@pytest.mark.parametrize(
    "parameters", [{"explodes": 0.1}, {"raises": -0.1}, {"raises": 1.1}, {"kills": "much"}, {"flaky": None}]
)
def test_bad_parameters_are_named(parameters: dict[str, object]) -> None:
    """An unknown one, and parts that are none."""
    with pytest.raises(InvalidInput) as caught:
        registry.find("faulty").check(parameters)
    assert caught.value.field == next(iter(parameters))


def test_parts_are_of_one_whole() -> None:
    """More than all jobs cannot misbehave; 0.7, 0.2 and 0.1 are one, whatever they add up to in binary."""
    found = registry.find("faulty")
    for good in ({"raises": 1.0}, {"raises": 0.7, "hangs": 0.2, "flaky": 0.1}, dict.fromkeys(KINDS, 0.2)):
        found.check(good)
    with pytest.raises(InvalidInput, match=r"raises \+ flaky are 1\.1 of all jobs") as caught:
        found.check({"raises": 0.6, "flaky": 0.5})
    assert caught.value.field == "raises"


def child(name: str) -> list[str]:
    """The command of a process that runs one job of this kind, and may take half a gigabyte."""
    return python(
        "-c",
        (
            "import resource, numpy as np; from common.simulations.faulty import faulty;"
            "resource.setrlimit(resource.RLIMIT_DATA, (2**29, 2**29)); print('begin', flush=True);"
            f"faulty(np.random.default_rng(1), {name}=1.0)"
        ),
    )


def run_child(name: str, timeout: float) -> "subprocess.CompletedProcess[bytes]":
    """Run it to its end."""
    return subprocess.run(
        child(name), env=environment(OPENBLAS_NUM_THREADS=1), capture_output=True, timeout=timeout, check=False
    )


def test_a_job_that_kills_its_process() -> None:
    """By SIGKILL, as the kernel does when memory runs out."""
    assert run_child("kills", 30).returncode == -signal.SIGKILL


def test_a_job_that_takes_memory() -> None:
    """It takes all that it can get."""
    done = run_child("memory", 60)
    assert done.returncode == 1
    assert b"MemoryError" in done.stderr


def test_a_job_that_hangs() -> None:
    """It does not end by itself."""
    with subprocess.Popen(child("hangs"), env=environment(), stdout=subprocess.PIPE) as hanging:
        try:
            assert hanging.stdout is not None
            assert hanging.stdout.readline() == b"begin\n"
            with pytest.raises(subprocess.TimeoutExpired):
                hanging.wait(1)
        finally:
            hanging.kill()
