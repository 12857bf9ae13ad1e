"""Every JSON that leaves the system can be read by those who know no NaN and no infinity."""

import json
from pathlib import Path
from typing import Any, NoReturn

import pytest
from flask.testing import FlaskClient

from common.ledger import Connection
from common.outputs import SPEC_NAME, SUMMARY_NAME
from services.worker.finish import finish as write_results
from tests.support import finish

# Their mean and variance are beyond what a double holds, and so is what lies between two of them.
HUGE = {1: -1.7e308, 2: 1.7e308, 3: 1.7e308, 4: -1.7e308}
PATHS = (
    "/jobs",
    "/jobs/count",
    "/batches",
    "/batches/{batch}",
    "/batches/{batch}/jobs",
    "/batches/{batch}/estimates",
    "/batches/{batch}/points",
    "/batches/{batch}/explain",
    "/batches/{batch}/verify/{verification}",
    "/simulations",
    "/health",
    "/health/live",
)
OTHERS = {"/", "/submit", "/submit/{name}", "/outputs/{name}", "/outputs/{batch}/{name}", "/static/{filename}"}


def strict(text: str) -> Any:
    """Read it as JSON.parse does."""

    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} in {text}")

    return json.loads(text, parse_constant=refuse)


@pytest.fixture
def batch(client: FlaskClient, connection: Connection, root: Path) -> int:
    """A finished sweep of two points."""
    sweep = {"axes": {"raises": [0.0, 0.5]}, "replications": 2}
    body = {"simulation": "faulty", "sweep": sweep, "parameters": {"flaky": 0.1}}
    found = int(client.post("/batches", json=body).get_json()["id"])
    finish(connection, found, HUGE)
    assert write_results(connection, root, found, "test")
    return found


def test_every_route(client: FlaskClient, batch: int) -> None:
    """Of a batch whose outputs overflow; a route that is added is to be added here."""
    rules = client.application.url_map.iter_rules()
    gets = {rule.rule.replace("<int:", "{").replace("<path:", "{").replace("<", "{").replace(">", "}")
            for rule in rules if "GET" in (rule.methods or ())}  # fmt: skip
    assert gets == {*PATHS, *OTHERS}
    for path in PATHS:
        answer = client.get(path.format(batch=batch, verification="abc"))
        assert strict(answer.text), path
    said = client.get(f"/batches/{batch}").get_json()["statistics"]["sum"]
    assert (said["n"], said["max"], said["standard_deviation"]) == (4, 1.7e308, None)


def test_the_files_of_a_batch(batch: int, root: Path) -> None:
    """What is not known is null."""
    place = root / str(batch)
    strict((place / SPEC_NAME).read_text())
    said = strict((place / SUMMARY_NAME).read_text())["outputs"]["sum"]
    assert (said["n"], said["m2"], said["standard_deviation"], said["max"]) == (4, None, None, 1.7e308)


def test_what_is_overlooked_is_no_answer(client: FlaskClient) -> None:
    """The provider refuses it, whatever route it is."""
    with client.application.app_context(), pytest.raises(ValueError, match="not JSON compliant"):
        client.application.json.dumps({"x": float("inf")})
