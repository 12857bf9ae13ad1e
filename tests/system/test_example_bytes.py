"""The worked examples on a server: the same bytes on one, two and four workers, in both output modes, under kill -9."""

import shutil
import subprocess
from pathlib import Path

import pytest

from common import queue
from common.batch import BatchSpec
from common.ledger import Connection, batches
from common.options import read_options
from common.simulations import registry
from common.submission import Submitter
from tests.conftest import StartWorker
from tests.slots import kill_at_work
from tests.support import wait_for
from tests.system.test_byte_equality import SEED, Submit, assert_bytes, finished, start
from tests.system.test_examples import EXAMPLES

SMALL = {"european_call": {"paths": 200}, "ruin": {}, "percolation_c": {"size": 16}}
pytestmark = pytest.mark.skipif(
    not all(shutil.which(name) for name in ("cc", "make", "awk")), reason="needs a C compiler, make and awk"
)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A server's directory of simulations with all three examples."""
    place = tmp_path / "simulations"
    shutil.copytree(EXAMPLES / "python" / "simulations", place, ignore=shutil.ignore_patterns("__pycache__"))
    tables = ""
    for name in ("shell", "c"):
        shutil.copytree(EXAMPLES / name, place, dirs_exist_ok=True, ignore=shutil.ignore_patterns("outputs", "*.png"))
        tables += (EXAMPLES / name / "simulations.toml").read_text(encoding="utf-8") + "\n"
    (place / "simulations.toml").write_text(tables, encoding="utf-8")
    subprocess.run(["make", "--silent", "-B", "percolation"], cwd=place, check=True)
    monkeypatch.setattr(registry, "_chosen", [place])
    return place


@pytest.fixture
def submit(connection: Connection, redis_url: str, root: Path, place: Path) -> Submit:
    """Submits a batch of an example."""
    submitter = Submitter(connection, queue.make_app(redis_url), root)

    def begin(name: str, mode: str, jobs: int, job_seconds: float = 0.0) -> BatchSpec:
        options = read_options({"simulation": name, "parameters": SMALL[name], "output_mode": mode})
        return submitter.submit(jobs, SEED, job_seconds=job_seconds, options=options)

    return begin


@pytest.mark.parametrize("count", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 4])
@pytest.mark.parametrize("mode", ["files", "packed"])
def test_any_number_of_workers(
    submit: Submit, connection: Connection, root: Path, place: Path, worker: StartWorker, mode: str, count: int
) -> None:
    start(connection, worker, count, SIMULATIONS_DIR=place)
    specs = [submit(name, mode, 30) for name in SMALL]
    for spec in specs:
        finished(connection, spec)
        assert_bytes(connection, root, spec)


@pytest.mark.parametrize(
    "name", ["ruin", *(pytest.param(name, marks=pytest.mark.slow) for name in SMALL if name != "ruin")]
)
@pytest.mark.parametrize("mode", ["files", pytest.param("packed", marks=pytest.mark.slow)])
def test_kill_9_in_between(
    submit: Submit, connection: Connection, root: Path, place: Path, worker: StartWorker, name: str, mode: str
) -> None:
    victim, _ = start(connection, worker, 2, SIMULATIONS_DIR=place)
    spec = submit(name, mode, 200, job_seconds=0.04)
    wait_for(lambda: batches.view(connection, spec.id).done >= 10, 60, "progress", victim.text)
    kill_at_work(connection, victim)
    finished(connection, spec)
    assert_bytes(connection, root, spec)
    assert batches.view(connection, spec.id).warnings == ()
