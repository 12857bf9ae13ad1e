"""The options of a batch over POST /batches: each field arrives in the specification, or is named in an error."""

import json
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from common import outputs
from common.ledger import Connection, batches, keys
from common.options import MOST_DEPENDENCIES, Options
from tests.integration.api_support import assert_problem
from tests.support import dump

# What is sent, and what the specification has then where that is not the same; with what must be sent beside it.
GOOD: dict[str, list[tuple[Any, Any]]] = {
    "simulation": [("random_numbers", "random_numbers"), ("faulty", "faulty")],
    "parameters": [({}, {}), ({"raises": 0.25, "kills": 0}, {"raises": 0.25, "kills": 0})],
    "sweep": [({}, {}), ({"points": [{}], "replications": 7},
                         {"mode": "points", "points": [{}], "replications": 7, "common_random_numbers": False})],
    "until": [("", ""), ("ci_halfwidth(mean) < 1 % and n >= 500", "ci_halfwidth(mean) < 1 % and n >= 500")],
    "time_limit_seconds": [(0, 0.0), (0.5, 0.5), (2_592_000, 2_592_000.0)],
    "memory_limit_mb": [(0, 0), (64, 64), (64.0, 64), (2**22, 2**22)],
    "retries": [(0, 0), (3, 3), (100, 100)],
    "retry_delay_seconds": [(0, 0.0), (0.25, 0.25), (3600, 3600.0)],
    "crash_limit": [(1, 1), (100, 100)],
    "max_fails": [(None, None), (0, 0), (3, 3), ("3", 3), (3.0, 3), ("0%", 0), ("50%", 3), ("34%", 2), ("100%", 7)],
    "throttle": [(0, 0), (2, 2), (1_000_000, 1_000_000)],
    "priority": [(-100, -100), (0, 0), (100, 100)],
    "partition": [("default", "default"), ("gpu-2_a", "gpu-2_a"), ("a" * 32, "a" * 32)],
    "dependency": [("", ()), ([], ()), ("afterok:1", (("afterok", 1),)), ([["aftercorr", 1]], (("aftercorr", 1),)),
                   ("afterany:1:2,afternotok:1", (("afterany", 1), ("afterany", 2), ("afternotok", 1)))],
    "kill_on_invalid_dependency": [(True, True), (False, False)],
    "hold": [(True, True), (False, False)],
    "output_mode": [("files", "files"), ("packed", "packed")],
}  # fmt: skip

NAN, INFINITY = float("nan"), float("inf")
BAD: dict[str, list[Any]] = {
    "simulation": ["", "nonsense", 5, None, ["faulty"]],
    "parameters": [[], None, "raises=1"],
    "sweep": [[], None, "x", {"nonsense": 1}, {"axes": {}}, {"axes": []}, {"axes": 5},
              {"points": [{}], "axes": {"a": [1]}},
              {"mode": "nonsense", "axes": {"a": [1]}}, {"mode": [], "axes": {"a": [1]}}, {"replications": 2},
              {"points": [{}], "common_random_numbers": 1}, {"mode": "zip", "axes": {"a": [1], "b": [1, 2]}}],
    "until": ["mean", "ci_halfwidth(nonsense) < 1", "ci_halfwidth(mean) < 0", "x" * 201, 5, None],
    "time_limit_seconds": [-0.1, 2_592_001, "soon", NAN, INFINITY, True, None, []],
    "memory_limit_mb": [-1, 2**22 + 1, 0.5, "much", True, None],
    "retries": [-1, 101, 1.5, "x", True, None],
    "retry_delay_seconds": [-1, 3601, NAN, "x", True, None],
    "crash_limit": [0, 101, 1.5, True, None],
    "max_fails": [-1, 1.5, "-1", "5 %", "%", "many", True, [], 10**10, NAN, INFINITY],
    "throttle": [-1, 1_000_001, 0.5, True, None, 10**400],
    "priority": [-101, 101, 0.5, True, None],
    "partition": ["", "GPU", "a b", "a" * 33, "-a", "a\n", 5, None],
    "dependency": ["afterok", "afterok:", "nonsense:1", "afterok:x", "afterok:99", [["nonsense", 1]], [["afterok", 99]],
                   [["afterok"]], [["afterok", "x"]], "afterok:1," * (MOST_DEPENDENCIES + 1), 5, None, {"afterok": 1},
                   [["afterok", -1]], [["afterok", 2**70]], "aftercorr:1"],
    "kill_on_invalid_dependency": ["perhaps", 2, None],
    "hold": ["perhaps", 2, None],
    "output_mode": ["zip", "", 1, None],
}  # fmt: skip


def test_every_field_is_tried() -> None:
    """An option that is new needs its values here."""
    assert set(GOOD) == set(BAD) == set(Options.model_fields)


def post(client: FlaskClient, body: object, key: str = "") -> TestResponse:
    """Submit; NaN is sent as Python writes it."""
    headers = {"Idempotency-Key": key} if key else {}
    return client.post("/batches", data=json.dumps(body), content_type="application/json", headers=headers)


@pytest.fixture
def others(client: FlaskClient) -> list[int]:
    """Batches 1 and 2, of seven jobs each, to depend on."""
    return [post(client, {"jobs": 7}).get_json()["id"] for _ in range(2)]


@pytest.mark.parametrize(
    ("name", "sent", "wanted"), [(name, *pair) for name, pairs in GOOD.items() for pair in pairs], ids=repr
)
def test_good(
    client: FlaskClient,
    connection: Connection,
    root: Path,
    others: list[int],
    name: str,
    sent: object,
    wanted: object,
) -> None:
    """202; ledger, volume and API have the value, and every other option its default."""
    beside = {"simulation": "faulty"} if name == "parameters" else {}
    response = post(client, {"jobs": 7, "seed": 1, name: sent, **beside})
    assert response.status_code == 202, response.text
    batch = response.get_json()["id"]
    spec = batches.view(connection, batch).spec
    assert getattr(spec, name) == wanted
    assert outputs.read_spec(root / str(batch)) == spec
    shown = client.get(f"/batches/{batch}").get_json()["options"]
    assert shown == json.loads(json.dumps({field: getattr(spec, field) for field in Options.model_fields}))
    plain = batches.view(connection, others[0]).spec
    for field in set(Options.model_fields) - {name, *beside}:
        assert getattr(spec, field) == getattr(plain, field)


@pytest.mark.parametrize(("name", "sent"), [(name, sent) for name, values in BAD.items() for sent in values])
def test_bad(
    client: FlaskClient, connection: Connection, root: Path, others: list[int], name: str, sent: object
) -> None:
    """400 that names the field; no key in Redis differs, and no file came."""
    before, files = dump(connection), sorted(root.rglob("*"))
    # Another size than the others have, for aftercorr.
    body = assert_problem(post(client, {"jobs": 6, name: sent}), 400, name)
    assert body["detail"].startswith(name), body
    assert len(body["detail"]) < 300
    assert dump(connection) == before
    assert sorted(root.rglob("*")) == files


@pytest.mark.parametrize(
    "parameters",
    [{"raises": -0.1}, {"raises": "x"}, {"raises": NAN}, {"raises": INFINITY}, {"raises": None}, {"raises": [0.1]},
     {"nonsense": 0.1}, {"": 1}],
)  # fmt: skip
def test_parameters_that_the_simulation_refuses(
    client: FlaskClient, connection: Connection, root: Path, parameters: dict[str, float]
) -> None:
    """They are looked at, fixed or swept, before anything is submitted; the error names the parameter."""
    [(name, value)] = parameters.items()
    beside = {"simulation": "faulty"}
    assert_problem(post(client, {"jobs": 5, "parameters": parameters, **beside}), 400, name)
    assert_problem(post(client, {"sweep": {"axes": {name: [value]}, "replications": 5}, **beside}), 400, name)
    assert_problem(post(client, {"sweep": {"points": [parameters]}, **beside}), 400, name)
    assert_problem(post(client, {"jobs": 5, "parameters": {"raises": 0.1}}), 400, "raises")
    assert dump(connection) == {}
    assert list(root.iterdir()) == []


def test_a_dependency_that_does_not_exist_says_which(client: FlaskClient, others: list[int]) -> None:
    """And aftercorr of another size says both sizes."""
    body = assert_problem(post(client, {"jobs": 7, "dependency": "afterok:1,afterany:12"}), 400, "dependency")
    assert "there is no batch 12" in body["detail"]
    body = assert_problem(post(client, {"jobs": 6, "dependency": "aftercorr:2"}), 400, "dependency")
    assert "batch 2 has 7 jobs, this one 6" in body["detail"]


OTHER: dict[str, Any] = {
    "simulation": "faulty",
    "time_limit_seconds": 1,
    "memory_limit_mb": 64,
    "retries": 1,
    "retry_delay_seconds": 2,
    "crash_limit": 4,
    "max_fails": 1,
    "throttle": 1,
    "priority": 1,
    "partition": "gpu",
    "dependency": "afterok:1",
    "kill_on_invalid_dependency": True,
    "hold": True,
    "output_mode": "packed",
    "sweep": {"points": [{}], "replications": 7},
    "until": "count(mean) >= 5",
}


@pytest.mark.parametrize("name", sorted(OTHER))
def test_the_same_key_with_another_option_is_a_conflict(
    client: FlaskClient, connection: Connection, others: list[int], name: str
) -> None:
    """In both directions; the same options give the same batch."""
    plain, changed = {"jobs": 7, "seed": 1}, {"jobs": 7, "seed": 1, name: OTHER[name]}
    first, second = post(client, plain, "plain"), post(client, changed, "changed")
    assert (first.status_code, second.status_code) == (202, 202)
    for body, key in ((changed, "plain"), (plain, "changed")):
        detail = assert_problem(post(client, body, key), 409, "Idempotency-Key")["detail"]
        assert f"another {name}" in detail
    assert post(client, changed, "changed").get_json() == second.get_json()
    assert post(client, plain, "plain").get_json() == first.get_json()
    assert connection.command("ZCARD", keys.BATCHES) == 4


def test_the_same_key_with_other_parameters_is_a_conflict(client: FlaskClient) -> None:
    """Parameters are compared by value."""
    body = {"jobs": 7, "simulation": "faulty", "parameters": {"raises": 0.5}}
    assert post(client, body, "k").status_code == 202
    assert_problem(post(client, {**body, "parameters": {"raises": 0.25}}, "k"), 409, "Idempotency-Key")
    assert post(client, {**body, "parameters": {"raises": 0.50}}, "k").status_code == 202


def test_max_fails_in_percent_is_exact(client: FlaskClient, connection: Connection) -> None:
    """0.57 % of 10,000 jobs is 57, which in binary floating point would be 56."""
    batch = post(client, {"jobs": 10_000, "max_fails": "0.57%"}).get_json()["id"]
    assert batches.view(connection, batch).spec.max_fails == 57
