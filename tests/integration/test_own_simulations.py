"""A user's own file on real workers: what it may return, who runs it, and what comes out."""

import csv
import os
from pathlib import Path
from typing import Any

import pyarrow.csv
import pyarrow.parquet
import pytest

from common.audit import audit, verify
from common.batch import BatchSpec
from common.explain import explain_batch, explain_job
from common.jobs import Jobs
from common.ledger import Connection, batches
from common.returned import WrongResult
from common.simulations import registry
from common.sweep import Sweep
from tests.conftest import StartWorker
from tests.integration.api_support import MakeClient, assert_problem
from tests.support import counted, differences, files, wait_for

MINE = '''
from batchsim import simulation

@simulation(outputs={"price": float, "hits": int})
def mine(rng, *, sigma: float = 0.2, k: int = 100):
    """Draws around k."""
    drawn = rng.normal(k, sigma, 20)
    return {"price": float(drawn.mean()), "hits": int((drawn > k).sum()), "note": "a, b"}
'''
SHAPES = '''
import numpy as np
from batchsim import simulation

class Frame:
    """As a DataFrame, as far as it matters."""

    def to_dict(self, orient):
        assert orient == "records"
        return [{"x": 1, "t": "a"}, {"x": 2, "t": "b"}]

class Own(dict):
    pass

@simulation(outputs={"x": float})
def shapes(rng, *, what: str = "dict"):
    """Returns all kinds of things."""
    rng.random()
    return {
        "dict": {"x": 1.5, "t": "a"}, "mapping": Own(x=1.5, t="a"), "numpy": {"x": np.float32(0.5), "n": np.int64(3)},
        "bool": {"x": True}, "nan": {"x": float("nan")}, "infinity": {"x": float("-inf")},
        "rows": [{"x": 1, "t": "a"}, {"x": 2, "t": "b"}], "frame": Frame(),
        "none": None, "number": 5, "text": "x", "empty": [], "list": [1, 2], "tuple": (1, 2), "other key": {"y": 1},
        "text value": {"x": "much"}, "none value": {"x": None}, "list value": {"x": [1]}, "complex": {"x": 1j},
        "too large": {"x": 10**400}, "vector": np.zeros(3), "cube": np.zeros((2, 2, 2)), "matrix": np.zeros((2, 2)),
        "ragged": [{"x": 1}, {"y": 2}], "no rows": np.zeros((0, 2)),
    }[what]

@simulation(outputs={"c1": float})
def matrix(rng):
    """A 2-D array."""
    return np.array([[1.0, 2.0], [3.0, 4.0]])
'''
GOOD = {
    "dict": (b"x,t\r\n1.5,a\r\n", 1.5),
    "mapping": (b"x,t\r\n1.5,a\r\n", 1.5),
    "numpy": (b"x,n\r\n0.5,3\r\n", 0.5),
    "bool": (b"x\r\nTrue\r\n", 1.0),
    "infinity": (b"x\r\n-inf\r\n", float("-inf")),
    "rows": (b"x,t\r\n1,a\r\n2,b\r\n", 2.0),
    "frame": (b"x,t\r\n1,a\r\n2,b\r\n", 2.0),
}
BAD = {
    "none": "returned NoneType; a dict with x is needed",
    "number": "returned int",
    "text": "returned str",
    "empty": "returned list",
    "list": "returned list",
    "tuple": "returned tuple",
    "other key": "returned no 'x'; it declares x",
    "text value": "returned x = 'much', which is no number",
    "none value": "returned x = None",
    "list value": "returned x = [1]",
    "complex": "returned x = 1j",
    "too large": "which is no number",
    "vector": "returned ndarray",
    "cube": "returned ndarray",
    "matrix": "returned no 'x'",
    "ragged": "returned rows with different columns",
    "no rows": "returned rows with different columns",
}


@pytest.fixture
def place(place: Path) -> Path:
    """Beside the user's file another one."""
    (place / "shapes.py").write_text(SHAPES)
    return place


def post(make_client: MakeClient, place: Path, **body: object) -> int:
    """Submit over HTTP; returns the batch's id."""
    response = make_client(simulations_dir=str(place)).post("/batches", json={"seed": 42, **body})
    assert response.status_code == 202, response.text
    return int(response.get_json()["id"])


def finished(connection: Connection, batch: int, timeout: float = 60) -> BatchSpec:
    """Wait for the results files."""
    wait_for(lambda: batches.view(connection, batch).finished, timeout, "the end", lambda: counted(connection, batch))
    return batches.view(connection, batch).spec


@pytest.mark.parametrize("mode", ["files", "packed"])
def test_a_sweep_over_http(
    connection: Connection, make_client: MakeClient, root: Path, place: Path, worker: StartWorker, mode: str
) -> None:
    """Every job ran at its point: the CSV's bytes, and the parameters as columns of the results files."""
    sweep = {"axes": {"sigma": [0.1, 0.5], "k": [90, 100, 110]}, "replications": 25}
    worker(slots=2, SIMULATIONS_DIR=place)
    spec = finished(connection, post(make_client, place, simulation="mine", sweep=sweep, output_mode=mode))
    assert (spec.jobs, spec.outputs, counted(connection, spec.id)) == (150, ("price", "hits"), {"COMPLETED": 150})
    jobs, own = Jobs(spec), root / str(spec.id)
    wanted = {f"job_{index}.csv": jobs.result(index)[0] for index in range(1, 151)}
    if mode == "files":
        assert differences(files(own), wanted) == []
    with make_client(simulations_dir=str(place)).get(f"/outputs/{spec.id}/job_77.csv") as response:
        assert response.data == wanted["job_77.csv"]
    with (own / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    points = Sweep.from_dict(sweep)
    for index, row in enumerate(rows, 1):
        at = points.parameters(points.point(index))
        assert {"sigma": float(row["sigma"]), "k": int(row["k"])} == at
        assert (float(row["price"]), float(row["hits"])) == jobs.result(index)[1]
    table = pyarrow.parquet.read_table(own / "results.parquet")
    assert table.column_names == list(rows[0])
    assert table["sigma"].to_pylist() == [float(row["sigma"]) for row in rows]
    assert audit(connection, root, spec.id) == []
    assert verify(root, spec, sample=150) == []


def test_a_sweep_whose_values_are_typed_in_many_ways(
    connection: Connection, make_client: MakeClient, root: Path, place: Path, worker: StartWorker
) -> None:
    """The results files have a column of the parameter's type."""
    worker(slots=2, SIMULATIONS_DIR=place)
    sweep = {"axes": {"k": ["3", "10", 2.0, True]}, "replications": 2}
    spec = finished(connection, post(make_client, place, simulation="mine", sweep=sweep))
    assert spec.sweep["axes"] == {"k": [3, 10, 2, 1]}
    for name in ("results.csv", "points.csv"):
        table = pyarrow.csv.read_csv(root / str(spec.id) / name)
        assert table["k"].to_pylist()[:: 2 if name == "results.csv" else 1] == [3, 10, 2, 1]
        assert '"3"' not in (root / str(spec.id) / name).read_text()


def test_wrong_parameters_and_names_are_refused(connection: Connection, make_client: MakeClient, place: Path) -> None:
    """Before anything is submitted, with the field."""
    client = make_client(simulations_dir=str(place))
    for body, field in (
        ({"simulation": "yours"}, "simulation"),
        ({"simulation": "mine", "parameters": {"sigma": "much"}}, "sigma"),
        ({"simulation": "mine", "parameters": {"k": 1.5}}, "k"),
        ({"simulation": "mine", "parameters": {"mu": 1}}, "mu"),
        ({"simulation": "mine", "until": "ci_halfwidth(mean) < 1"}, "until"),
    ):
        assert_problem(client.post("/batches", json={"jobs": 5, **body}), 400, field)
    assert batches.all_ids(connection) == []
    found = {each["name"]: each for each in client.get("/simulations").get_json()["simulations"]}
    assert found["mine"]["outputs"] == {"price": "float", "hits": "int"}
    assert found["mine"]["parameters"]["properties"]["k"]["default"] == 100


def test_who_lacks_the_simulation_does_not_run_it(
    connection: Connection, make_client: MakeClient, place: Path, worker: StartWorker
) -> None:
    """Such workers are named and go on with other batches; who has it as it was runs it."""
    other = place.parent / "other"
    other.mkdir()
    (other / "mine.py").write_text(MINE.replace("Draws", "Draws well"))
    worker()
    batch = post(make_client, place, simulation="mine", jobs=8)
    plain = finished(connection, post(make_client, place, jobs=5))
    assert counted(connection, plain.id) == {"COMPLETED": 5}

    def said(*words: str) -> bool:
        found = explain_batch(connection, batch)
        text = " ".join(found.details)
        return found.reason == "Resources" and all(word in text for word in words)

    version = registry.find("mine").version
    wait_for(lambda: said(f"simulation mine, version {version}", "these workers lack"), 10, "the sentence")
    assert "another version" not in " ".join(explain_batch(connection, batch).details)
    assert "where these workers look" in explain_batch(connection, batch).advice
    worker(SIMULATIONS_DIR=other)
    wait_for(lambda: said("(another version)"), 10, "the other worker")
    assert explain_job(connection, batch, 3).reason == "Resources"
    assert counted(connection, batch) == {"PENDING": 8}
    right = worker(SIMULATIONS_DIR=place)
    finished(connection, batch)
    assert counted(connection, batch) == {"COMPLETED": 8}
    assert "Traceback" not in right.text()


def test_a_file_that_changes_is_another_version(
    connection: Connection, make_client: MakeClient, place: Path, worker: StartWorker
) -> None:
    """A worker that runs sees the new file without being started again; the old batch keeps its results."""
    worker(SIMULATIONS_DIR=place)
    first = finished(connection, post(make_client, place, simulation="mine", jobs=3))
    (place / "mine.py").write_text(MINE.replace("rng.normal(k", "rng.normal(k + 1000"))
    os.utime(place / "mine.py", ns=(1, 1))
    second = finished(connection, post(make_client, place, simulation="mine", jobs=3))
    assert first.version != second.version
    assert batches.statistics(connection, first.id, first.outputs)["price"].max < 200
    assert batches.statistics(connection, second.id, second.outputs)["price"].min > 1000


def test_a_module_beside_the_file_that_changes_is_another_version(
    connection: Connection, make_client: MakeClient, place: Path, worker: StartWorker
) -> None:
    """On a worker that runs: each batch with the module as it was submitted, though it is imported late."""
    late = MINE.replace("    drawn =", "    from shift import by\n    drawn = by +")
    (place / "mine.py").write_text(late)
    (place / "shift.py").write_text("by = 0")
    worker(SIMULATIONS_DIR=place)
    first = finished(connection, post(make_client, place, simulation="mine", jobs=3))
    (place / "shift.py").write_text("by = 1000")
    second = finished(connection, post(make_client, place, simulation="mine", jobs=3))
    assert first.version != second.version
    assert batches.statistics(connection, first.id, first.outputs)["price"].max < 200
    assert batches.statistics(connection, second.id, second.outputs)["price"].min > 1000


def test_a_name_that_stands_for_several(
    connection: Connection, make_client: MakeClient, root: Path, place: Path, worker: StartWorker
) -> None:
    """It is refused; what was submitted before, of either version, is run by the workers all the same."""
    held = post(make_client, place, simulation="mine", jobs=4)
    (place / "a.py").write_text(MINE.replace("Draws", "Draws well"))
    (place / "b.py").write_text(MINE.replace("def mine", "def random_walk"))
    client = make_client(simulations_dir=str(place))
    for name in ("mine", "random_walk"):
        reply = client.post("/batches", json={"simulation": name, "jobs": 3})
        assert_problem(reply, 400, "simulation")
        assert "stands for several" in reply.text
    told = client.get("/simulations").get_json()["broken"]
    assert sorted(told) == [f"{place}/b.py [random_walk]", f"{place}/mine.py [mine]"]
    worker(SIMULATIONS_DIR=place)
    assert verify(root, finished(connection, held), sample=4) == []
    assert counted(connection, held) == {"COMPLETED": 4}


def jobs_of(name: str, **parameters: Any) -> Jobs:
    """A batch of one of the user's simulations."""
    found = registry.find(name)
    given = {"parameters": parameters, "outputs": tuple(found.outputs), "version": found.version}
    return Jobs(BatchSpec(1, 1, 1, simulation=name, **given))


@pytest.mark.parametrize("what", GOOD)
def test_what_may_be_returned(place: Path, what: str) -> None:
    """A dict or several rows; the outputs are those of the last row."""
    assert jobs_of("shapes", what=what).result(1) == (GOOD[what][0], (GOOD[what][1],))


def test_an_array_has_columns_by_number(place: Path) -> None:
    """A 2-D array is a table."""
    assert jobs_of("matrix").result(1) == (b"c0,c1\r\n1.0,2.0\r\n3.0,4.0\r\n", (4.0,))


@pytest.mark.parametrize("what", BAD)
def test_what_may_not_be_returned(place: Path, what: str) -> None:
    """The error says what came and what is needed."""
    with pytest.raises(WrongResult) as caught:
        jobs_of("shapes", what=what).result(1)
    assert BAD[what] in str(caught.value)
    assert str(caught.value).startswith("shapes returned ")


@pytest.mark.parametrize("mode", ["files", "packed"])
def test_wrong_results_fail_the_job_and_no_other(
    connection: Connection, make_client: MakeClient, root: Path, place: Path, worker: StartWorker, mode: str
) -> None:
    """FAILED with the reason; what is not a number counts as no value, and the job is COMPLETED."""
    worker(SIMULATIONS_DIR=place)
    names = [*GOOD, "nan", *BAD]
    sweep = {"points": [{"what": name} for name in names]}
    spec = finished(connection, post(make_client, place, simulation="shapes", sweep=sweep, output_mode=mode))
    assert counted(connection, spec.id) == {"COMPLETED": len(GOOD) + 1, "FAILED": len(BAD)}
    failures = batches.failures(connection, spec.id)
    assert {index: BAD[name] in failures[index] for index, name in enumerate(names, 1) if name in BAD} == dict.fromkeys(
        failures, True
    )
    finite = [value for _, value in GOOD.values() if abs(value) < 1e9]
    found = batches.statistics(connection, spec.id, spec.outputs)["x"]
    assert (found.n, found.mean) == (len(finite), pytest.approx(sum(finite) / len(finite)))
    with (root / str(spec.id) / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["what"] for row in rows] == names
    assert audit(connection, root, spec.id) == []
    assert verify(root, spec, sample=100) == []
