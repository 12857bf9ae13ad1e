"""Suspicious results are told to whoever looks: while the batch runs, at its end, and in its files."""

import json
import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner
from flask.testing import FlaskClient

from batchsim.cli import batchsim
from common.explain import explain_batch, explain_job
from common.ledger import Connection, batches, workers
from common.suspicion import warnings
from tests.conftest import StartWorker
from tests.integration.api_support import MakeClient
from tests.slots import slots_of, stopped_at_work
from tests.support import Running, counted, environment, finish, python, wait_for

MINE = '''
import os, time
import numpy as np
from batchsim import simulation

@simulation(outputs={"x": float, "y": float})
def unseeded(rng, *, scale: float = 1.0):
    """Always the same."""
    found = np.random.default_rng(1).normal(size=2) * scale
    return {"x": found[0], "y": found[1]}

@simulation(outputs={"x": float})
def few(rng):
    """From twenty seeds."""
    return {"x": np.random.default_rng(int(rng.integers(20))).normal()}

@simulation(outputs={"x": float})
def attempts(rng):
    """Depends on the attempt, and takes its time."""
    time.sleep(0.05)
    return {"x": rng.random() + int(os.environ.get("JOB_ATTEMPT", "1"))}
'''


@pytest.fixture
def mine(make_client: MakeClient, place: Path) -> FlaskClient:
    """A client of an app that knows the user's file."""
    return make_client(simulations_dir=str(place))


def ran(client: FlaskClient, connection: Connection, **body: object) -> int:
    """Submit and wait for the results files."""
    batch = int(client.post("/batches", json=body).get_json()["id"])
    wait_for(lambda: batches.view(connection, batch).finished, 60, "the end", lambda: counted(connection, batch))
    return batch


def said_everywhere(client: FlaskClient, connection: Connection, root: Path, batch: int) -> list[str]:
    """The batch's warnings, which are the same in all places."""
    found: list[str] = client.get(f"/batches/{batch}").get_json()["warnings"]
    summary = json.loads((root / str(batch) / "summary.json").read_text())
    assert summary["warnings"] == found
    assert [text for text in explain_batch(connection, batch).details if "Warning" in text] == [
        f"Warning: {text}" for text in found
    ]
    return found


@pytest.mark.parametrize("mode", ["files", "packed"])
def test_the_unseeded(
    mine: FlaskClient, connection: Connection, root: Path, place: Path, worker: StartWorker, mode: str
) -> None:
    """All jobs the same; all jobs of a point the same; few seeds; and nothing of jobs that draw as they should."""
    worker(slots=2, SIMULATIONS_DIR=place)
    same = ran(mine, connection, jobs=12, simulation="unseeded", output_mode=mode)
    [text] = said_everywhere(mine, connection, root, same)
    assert text == "All jobs returned the same x and y: does the simulation use its random generator?"
    sweep = {"axes": {"scale": [1.0, 2.0, 0.5]}, "replications": 10}
    points = ran(mine, connection, simulation="unseeded", sweep=sweep, output_mode=mode)
    [text] = [text for text in said_everywhere(mine, connection, root, points) if "points" in text]
    assert text.startswith("At 3 of 3 points, the first being scale=1.0, all jobs returned the same x and y")
    few = ran(mine, connection, simulation="few", jobs=400, output_mode=mode)
    [text] = said_everywhere(mine, connection, root, few)
    assert text.startswith("100% of the jobs returned exactly what another one did")
    for body in (
        {"jobs": 400}, {"simulation": "few", "jobs": 9}, {"simulation": "unseeded", "jobs": 9},
        {"simulation": "unseeded", "sweep": {"axes": {"scale": [1.0, 2.0]}, "replications": 1}},
    ):  # fmt: skip
        assert said_everywhere(mine, connection, root, ran(mine, connection, output_mode=mode, **body)) == []


def test_while_it_runs(mine: FlaskClient, connection: Connection) -> None:
    """From the first jobs, before there are any files; of a batch of which nothing has run there is nothing to say."""
    batch = mine.post("/batches", json={"jobs": 30, "seed": 1}).get_json()["id"]
    assert mine.get(f"/batches/{batch}").get_json()["warnings"] == []
    finish(connection, batch, dict.fromkeys(range(1, 31), 5.0))
    assert not batches.view(connection, batch).finished
    [text] = mine.get(f"/batches/{batch}").get_json()["warnings"]
    assert text.startswith("All jobs returned the same sum and mean")
    swept = {"axes": {"raises": [0.0, 0.1]}, "replications": 15}
    batch = mine.post("/batches", json={"simulation": "faulty", "sweep": swept}).get_json()["id"]
    finish(connection, batch, {index: 5.0 if index < 16 else index * 1.1 for index in range(1, 31)})
    [text] = mine.get(f"/batches/{batch}").get_json()["warnings"]
    assert text.startswith("At 1 of 2 points, the first being raises=0.0,")


def test_on_the_command_line(connection: Connection, api: Callable[..., str], place: Path, worker: StartWorker) -> None:
    """``watch`` ends with it."""
    worker(SIMULATIONS_DIR=place)
    url = api(SIMULATIONS_DIR=place)
    given = ["submit", "--jobs", "20", "--simulation", "unseeded", "--watch", "--url", url]
    done = CliRunner().invoke(batchsim, given)
    assert done.exit_code == 0, done.output
    assert "Warning: All jobs returned the same x and y" in done.output


def test_at_the_end_of_a_run(home: Path, redis_binary: str) -> None:
    """``batchsim run`` says it after its table."""
    (home / "simulations").mkdir()
    (home / "simulations" / "mine.py").write_text(MINE)
    command = python("-m", "batchsim", "run", "--jobs", "20", "--simulation", "unseeded")
    done = subprocess.run(command, env=environment(), cwd=home, capture_output=True, text=True, timeout=60, check=True)
    assert "Warning: All jobs returned the same x and y" in " ".join((done.stdout + done.stderr).split())


def holds_files(connection: Connection, batch: int, own: Path, worker: Running) -> bool:
    """Suspend the worker's slot; whether it has written three files that are not committed, else it goes on."""
    slots = slots_of(worker)
    if (
        stopped_at_work(connection, slots)
        and len(list(own.glob("job_*.csv"))) >= batches.view(connection, batch).done + 3
    ):
        return True
    for pid in slots:
        os.kill(pid, signal.SIGCONT)
    return False


def test_results_that_depend_on_the_attempt(
    mine: FlaskClient, connection: Connection, root: Path, place: Path, worker: StartWorker
) -> None:
    """The files of a range that was never committed are compared with those of its second attempt."""
    victim = worker(SIMULATIONS_DIR=place, SLICE_SECONDS=60)
    # A batch for a known slot begins with ranges of twelve jobs, which are committed as a whole.
    wait_for(lambda: workers.alive(connection), 10, "the first heartbeat")
    batch = int(mine.post("/batches", json={"jobs": 100, "simulation": "attempts"}).get_json()["id"])
    own = root / str(batch)
    wait_for(lambda: holds_files(connection, batch, own, victim), 60, "files", victim.text)
    victim.kill()
    left = sorted(int(path.stem.split("_")[1]) for path in own.glob("job_*.csv"))
    other = worker(slots=2, SIMULATIONS_DIR=place)
    wait_for(lambda: batches.view(connection, batch).finished, 60, "the end", other.text)
    [text] = said_everywhere(mine, connection, root, batch)
    job, attempt = batches.view(connection, batch).differed or (0, 0)
    assert (job in left, attempt) == (True, 2)
    assert text.startswith(f"Job {batch}_{job} gave other bytes at attempt 2")
    assert any("gave other bytes" in line for line in explain_job(connection, batch, job).details)
    assert "job.differs" in other.text()


def test_the_same_bytes_are_no_news(mine: FlaskClient, connection: Connection, root: Path, worker: StartWorker) -> None:
    """A worker is lost, the jobs run again, and give what they gave before."""
    victim = worker(SLICE_SECONDS=60)
    # A batch for a known slot begins with ranges of twelve jobs, which are committed as a whole.
    wait_for(lambda: workers.alive(connection), 10, "the first heartbeat")
    batch = int(mine.post("/batches", json={"jobs": 100, "job_seconds": 0.05}).get_json()["id"])
    wait_for(lambda: holds_files(connection, batch, root / str(batch), victim), 60, "files", victim.text)
    victim.kill()
    other = worker(slots=2)
    wait_for(lambda: batches.view(connection, batch).finished, 60, "the end", other.text)
    assert batches.view(connection, batch).crashes >= 1
    assert warnings(connection, batches.view(connection, batch)) == []
