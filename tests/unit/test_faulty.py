"""The simulation whose jobs misbehave: which ones is drawn, how is chosen, and the others are as ever."""

import signal
import subprocess

import numpy as np
import pytest

from common.errors import InvalidInput
from common.simulations import SIMULATIONS, faulty, random_numbers, simulation
from common.simulations.faulty import KINDS, Faulty, Misbehaved
from tests.support import environment, python

SEED = 42


def stream(index: int) -> np.random.Generator:
    """A job's random stream."""
    return np.random.Generator(np.random.Philox(key=SEED, counter=[0, 0, 0, index]))


def bad_jobs(job: Faulty, jobs: int, attempt: int = 1) -> set[int]:
    """Those that raise."""
    found = set()
    for index in range(1, jobs + 1):
        try:
            assert job(stream(index), attempt) == random_numbers.random_numbers(stream(index))
        except Misbehaved:
            found.add(index)
    return found


@pytest.mark.parametrize("part", [0.0, 0.1, 0.5, 1.0])
def test_so_many_raise_and_the_others_give_what_random_numbers_gives(part: float) -> None:
    """The part is that of a draw of each job; the same ones at every attempt."""
    job = Faulty({"raises": part})
    bad = bad_jobs(job, 1000)
    assert abs(len(bad) - 1000 * part) < 60
    assert bad_jobs(job, 1000, attempt=2) == bad


def test_flaky_jobs_raise_once() -> None:
    """At the first attempt only, so that one retry mends them."""
    job = Faulty({"flaky": 0.3})
    assert 240 < len(bad_jobs(job, 1000)) < 360
    assert bad_jobs(job, 1000, attempt=2) == set()


def test_the_kinds_share_the_jobs() -> None:
    """Each kind has its own part of the draws, in the order of KINDS; what is left behaves."""
    job = Faulty(dict.fromkeys(KINDS, 0.1))
    assert [job.kind(0.1 * place + 0.05) for place in range(6)] == [*KINDS, ""]
    assert [Faulty({}).kind(drawn) for drawn in (0.0, 0.5, 0.999)] == [""] * 3
    assert Faulty({"flaky": 1.0}).kind(0.999) == "flaky"


@pytest.mark.parametrize(
    "parameters", [{"explodes": 0.1}, {"raises": -0.1}, {"raises": 1.1}, {"raises": 0.6, "kills": 0.6}]
)
def test_bad_parameters_are_named(parameters: dict[str, float]) -> None:
    """An unknown one, and parts that are none."""
    with pytest.raises(InvalidInput) as caught:
        simulation(faulty.NAME, parameters)
    assert caught.value.field == "parameters"


def test_both_simulations_are_known_by_name() -> None:
    """The one gives the plain row at every attempt, the other is as its parameters say."""
    assert set(SIMULATIONS) == {random_numbers.NAME, faulty.NAME}
    plain = simulation(random_numbers.NAME, {})
    assert plain(stream(3), 1) == plain(stream(3), 9) == random_numbers.random_numbers(stream(3))


def run_child(kind: str, timeout: float) -> "subprocess.CompletedProcess[bytes]":
    """Run one job of this kind in a process of its own, which may take half a gigabyte."""
    code = (
        "import resource, numpy as np; from common.simulations.faulty import Faulty;"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**29, 2**29)); print('begin', flush=True);"
        f"Faulty({{'{kind}': 1.0}})(np.random.default_rng(1), 1)"
    )
    return subprocess.run(
        python("-c", code), env=environment(OPENBLAS_NUM_THREADS=1), capture_output=True, timeout=timeout, check=False
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
    with pytest.raises(subprocess.TimeoutExpired) as caught:
        run_child("hangs", 3)
    assert caught.value.stdout == b"begin\n"
