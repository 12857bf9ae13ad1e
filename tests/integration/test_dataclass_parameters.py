"""A parameter that is a dataclass, over HTTP and on real workers."""

from pathlib import Path

import pytest

from common.audit import audit, verify
from common.ledger import Connection, batches
from tests.conftest import StartWorker
from tests.integration.api_support import MakeClient, assert_problem
from tests.support import counted, wait_for

MINE = """
from dataclasses import dataclass
from batchsim import simulation

@dataclass
class P:
    a: float
    b: int = 2

@simulation(outputs={"x": float})
def mine(rng, *, p: P = P(1.0), ps: list[P] = [P(1.0)]):
    p.a += 1
    ps.append(p)
    return {"x": p.a * p.b * len(ps)}
"""


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"jobs": 9}, (8, 8)),
        ({"jobs": 9, "parameters": {"p": {"a": 2.5}}}, (14, 14)),
        ({"sweep": {"axes": {"p": [{"a": 0}, {"a": 4, "b": 1}, {"a": 2}]}, "replications": 3}}, (4, 12)),
    ],
)
def test_jobs_get_it_as_it_is_declared(
    connection: Connection,
    make_client: MakeClient,
    root: Path,
    place: Path,
    worker: StartWorker,
    given: dict[str, object],
    said: tuple[float, float],
) -> None:
    """Whichever slot runs them after whatever: each job changes its own."""
    worker(slots=2, SIMULATIONS_DIR=place)
    reply = make_client(simulations_dir=str(place)).post("/batches", json={"seed": 1, "simulation": "mine", **given})
    assert reply.status_code == 202, reply.text
    batch = int(reply.get_json()["id"])
    wait_for(lambda: batches.view(connection, batch).finished, 60, "the end", lambda: counted(connection, batch))
    assert counted(connection, batch) == {"COMPLETED": 9}
    spec = batches.view(connection, batch).spec
    found = batches.statistics(connection, batch, spec.outputs)["x"]
    assert (found.min, found.max) == said
    assert audit(connection, root, batch) == []
    assert verify(root, spec, sample=9) == []


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({}, "p.a is missing"),
        ({"a": 1, "c": 2}, "p.c is not a field of p"),
        ({"a": "much"}, "p.a is 'much': input should be a valid number"),
        (5, "p is 5: input should be a dictionary"),
    ],
)
def test_what_does_not_fit_is_named(make_client: MakeClient, place: Path, value: object, told: str) -> None:
    client = make_client(simulations_dir=str(place))
    for given in ({"jobs": 1, "parameters": {"p": value}}, {"sweep": {"axes": {"p": [value]}}}):
        assert told in assert_problem(client.post("/batches", json={"simulation": "mine", **given}), 400, "p")["detail"]
