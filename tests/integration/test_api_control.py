"""The routes that act on a batch, and what they do; test_api_control_refusals has what they refuse."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from common import outputs, queue
from common.ledger import Connection, batches, ranges
from services.worker.finish import finish as write_results
from tests.integration.ledger_support import run_all, states, take
from tests.support import dump

JOBS = 6


# ---- cancel


@pytest.mark.parametrize(
    ("body", "which"),
    [
        (None, [1, 2, 3, 4, 5, 6]),
        ({}, [1, 2, 3, 4, 5, 6]),
        ({"jobs": 3}, [3]),
        ({"jobs": "3"}, [3]),
        ({"jobs": "1-2,5"}, [1, 2, 5]),
        ({"jobs": "1-6:2"}, [1, 3, 5]),
        ({"state": "PENDING"}, [2, 3, 4, 5, 6]),
        ({"state": "running"}, [1]),
        ({"jobs": "1-3", "state": "PENDING"}, [2, 3]),
        ({"jobs": "2-3", "state": "RUNNING"}, []),
        ({"jobs": "2,2,1-2"}, [1, 2]),
    ],
)
def test_cancel(
    client: FlaskClient, connection: Connection, batch: int, body: dict[str, Any] | None, which: list[int]
) -> None:
    """Exactly these jobs are CANCELLED, of which the first was running; the answer counts them."""
    assert take(connection).first == 1
    response = client.post(f"/batches/{batch}/cancel", **({} if body is None else {"json": body}))
    assert response.status_code == 200, response.text
    said = response.get_json()
    assert said["cancelled"] == len(which)
    assert said["counters"].get("CANCELLED", 0) == len(which)
    found = states(connection, batch)
    assert [index for index, state in enumerate(found, 1) if state == "CANCELLED"] == which
    assert (said["state"] == "CANCELLED") == (len(which) == JOBS)


def test_cancel_again_changes_nothing(client: FlaskClient, connection: Connection, ended: int) -> None:
    """An ended batch, and what was cancelled before, stay as they are; that is no error."""
    before = dump(connection)
    assert client.post(f"/batches/{ended}/cancel").get_json()["cancelled"] == 0
    assert client.post(f"/batches/{ended}/cancel", json={"jobs": 1}).get_json()["cancelled"] == 0
    assert dump(connection) == before


def test_cancel_on_a_full_disk(
    client: FlaskClient, connection: Connection, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is done, and says that an emptied Redis would undo it; on a disk with room there is no such warning."""

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(outputs, "write_synced", full)
        response = client.post(f"/batches/{batch}/cancel", json={"jobs": "2-3"})
    assert response.status_code == 200, response.text
    assert response.get_json()["cancelled"] == 2
    assert "No space left on device" in response.get_json()["warning"]
    assert states(connection, batch)[:3] == ["PENDING", "CANCELLED", "CANCELLED"]
    assert "warning" not in client.post(f"/batches/{batch}/cancel", json={"jobs": 4}).get_json()


# ---- hold, release, change


def test_hold_and_release(client: FlaskClient, connection: Connection, batch: int) -> None:
    """Held, nothing is given out; released, all is; both may be said twice."""
    for _ in range(2):
        said = client.post(f"/batches/{batch}/hold").get_json()
        assert (said["state"], said["held"], said["id"]) == ("HELD", True, batch)
        assert ranges.owed(connection, queue.QUEUE)[0] == 0
    for _ in range(2):
        said = client.post(f"/batches/{batch}/release", json={}).get_json()
        assert (said["state"], said["held"]) == ("PENDING", False)
        assert ranges.owed(connection, queue.QUEUE)[0] == JOBS
    assert said["counters"] == {"PENDING": JOBS}


@pytest.mark.parametrize(
    ("body", "throttle", "priority"),
    [
        ({"throttle": 2}, 2, 0),
        ({"priority": -7}, 0, -7),
        ({"throttle": 3, "priority": 100}, 3, 100),
        ({"throttle": 0}, 0, 0),
        ({"throttle": 4.0}, 4, 0),
    ],
)
def test_change(
    client: FlaskClient, connection: Connection, batch: int, body: dict[str, Any], throttle: int, priority: int
) -> None:
    """The answer and the ledger have the new values."""
    response = client.patch(f"/batches/{batch}", json=body)
    assert response.status_code == 200, response.text
    said, view = response.get_json(), batches.view(connection, batch)
    assert (said["throttle"], said["priority"]) == (view.throttle, view.priority) == (throttle, priority)


@pytest.mark.parametrize(("given", "most"), [(0, 0), (3, 3), ("50%", 3), ("100%", 6)])
def test_change_of_max_fails(client: FlaskClient, connection: Connection, batch: int, given: object, most: int) -> None:
    """A number or a part of the jobs, as at submit."""
    said = client.patch(f"/batches/{batch}", json={"max_fails": given}).get_json()
    assert said["max_fails"] == batches.view(connection, batch).max_fails == most
    seen = client.get(f"/batches/{batch}").get_json()
    assert seen["max_fails"] == most
    assert f" --max-fails {most}" in seen["command"]


def test_max_fails_of_a_batch_that_has_ended(
    client: FlaskClient, connection: Connection, root: Path, ended: int
) -> None:
    """It can be changed, for a requeue, and it alone."""
    assert client.patch(f"/batches/{ended}", json={"max_fails": 5}).get_json()["max_fails"] == 5
    assert outputs.read_control(root / str(ended)) == {"max_fails": 5}
    assert client.patch(f"/batches/{ended}", json={"max_fails": 6, "throttle": 1}).status_code == 409
    assert batches.view(connection, ended).max_fails == 5


def test_what_was_done_is_noted_on_the_volume(client: FlaskClient, root: Path, batch: int) -> None:
    """So that an emptied Redis does not undo it."""
    client.post(f"/batches/{batch}/hold")
    client.patch(f"/batches/{batch}", json={"throttle": 2, "priority": 3})
    client.post(f"/batches/{batch}/cancel", json={"jobs": "2-3,6"})
    noted = outputs.read_control(root / str(batch))
    assert noted == {"held": 1, "throttle": 2, "priority": 3, "cancelled": [[2, 2], [6, 1]], "closed": [[2, 2], [6, 1]]}


# ---- requeue


@pytest.mark.parametrize(
    ("body", "which"),
    [
        (None, [2, 5]),
        ({}, [2, 5]),
        ({"states": ["failed"]}, [2, 5]),
        ({"states": ["TIMEOUT"]}, []),
        ({"states": []}, []),
    ],
)
def test_requeue(
    client: FlaskClient, connection: Connection, ended: int, body: dict[str, Any] | None, which: list[int]
) -> None:
    """What failed is PENDING again; without such jobs the batch stays ended."""
    response = client.post(f"/batches/{ended}/requeue", **({} if body is None else {"json": body}))
    assert response.status_code == 200, response.text
    said = response.get_json()
    assert said["requeued"] == len(which)
    assert said["state"] == ("PENDING" if which else "FAILED")
    found = states(connection, ended)
    assert [index for index, state in enumerate(found, 1) if state == "PENDING"] == which


def test_requeue_missing(client: FlaskClient, connection: Connection, ended: int, root: Path) -> None:
    """Only results that are gone, unless states are named too."""
    for index in (1, 3, 4):
        (root / str(ended) / outputs.job_name(index)).write_bytes(b'numbers,sum,mean\r\n"[5]",5,0.5\r\n')
    said = client.post(f"/batches/{ended}/requeue", json={"missing": True}).get_json()
    assert said["requeued"] == 1
    assert states(connection, ended)[5] == "PENDING"
    run_all(connection)
    assert write_results(connection, root, ended, "test")
    (root / str(ended) / outputs.job_name(6)).write_bytes(b'numbers,sum,mean\r\n"[5]",5,0.5\r\n')
    (root / str(ended) / outputs.job_name(3)).unlink()
    said = client.post(f"/batches/{ended}/requeue", json={"missing": True, "states": ["FAILED"]}).get_json()
    assert said["requeued"] == 3


# ---- explain


def test_explain(client: FlaskClient, ended: int) -> None:
    """A batch and one job, each with state, reason, sentences and advice."""
    for path, name in ((f"/batches/{ended}/explain", f"{ended}"), (f"/batches/{ended}/explain?job=2", f"{ended}_2")):
        said = client.get(path).get_json()
        assert set(said) == {"id", "state", "reason", "details", "advice"}
        assert (said["id"], said["state"], said["reason"]) == (name, "FAILED", "")
        assert said["details"]
        assert said["advice"]
    assert client.get(f"/batches/{ended}/explain?job=1").get_json()["state"] == "COMPLETED"
