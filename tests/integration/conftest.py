"""Fixtures of the integration tests: clients of the API, batches that are there."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from common import queue
from common.batch import BatchSpec
from common.control import Controller
from common.ledger import Connection, batches
from common.settings import Settings
from common.simulations import registry
from common.submission import Submitter
from services.api.app import create_app
from services.worker.finish import finish as write_results
from tests.integration.api_support import MakeClient
from tests.integration.ledger_support import assert_consistent, run_all


@pytest.fixture
def make_client(redis_url: str, root: Path) -> Iterator[MakeClient]:
    """Makes clients of apps with the given settings, and closes what the apps opened."""
    apps: list[Flask] = []

    def make(**settings: object) -> FlaskClient:
        given: dict[str, Any] = {
            "redis_url": redis_url,
            "output_dir": root,
            "num_jobs": 5,
            "min_free_mb": 0,
            **settings,
        }
        app = create_app(Settings(_env_file=None, **given))
        apps.append(app)
        return app.test_client()

    yield make
    for app in apps:
        app.extensions["batchsim"].connection.close()
        app.extensions["health"]._connection.close()
        for check in (app.extensions["health"]._broker, app.extensions["health"]._disk):
            check._executor.shutdown()


@pytest.fixture
def client(connection: Connection, make_client: MakeClient) -> FlaskClient:
    """A client of an app on an empty Redis."""
    return make_client()


@pytest.fixture
def ledger(connection: Connection) -> Iterator[Connection]:
    """A connection to an empty Redis; what the test leaves there must be consistent."""
    yield connection
    assert_consistent(connection)


@pytest.fixture
def spec(connection: Connection, redis_url: str, root: Path) -> BatchSpec:
    """A start-up batch of five jobs that has been submitted."""
    submitter = Submitter(connection, queue.make_app(redis_url), root)
    given = Settings(_env_file=None, num_jobs=5, seed=42, output_dir=root)  # type: ignore[call-arg]
    return submitter.start_up(given, "test")


@pytest.fixture
def submitter(connection: Connection, redis_url: str, root: Path) -> Submitter:
    """Submits to the test's Redis and directory, which is in use already."""
    batches.mark(connection)
    return Submitter(connection, queue.make_app(redis_url), root)


@pytest.fixture
def batch(client: FlaskClient) -> int:
    """A batch of six jobs that wait, submitted over HTTP."""
    return int(client.post("/batches", json={"jobs": 6, "seed": 1}).get_json()["id"])


@pytest.fixture
def ended(batch: int, connection: Connection, root: Path) -> int:
    """That batch after its end: jobs 2 and 5 FAILED; its results files are written."""
    run_all(connection, failed=[2, 5])
    assert write_results(connection, root, batch, "test")
    return batch


@pytest.fixture
def controller(submitter: Submitter, ledger: Connection, redis_url: str, root: Path) -> Controller:
    """Acts on the test's Redis and directory."""
    return Controller(ledger, queue.make_app(redis_url), root)


@pytest.fixture
def place(request: pytest.FixtureRequest, root: Path) -> Iterator[Path]:
    """A directory with the user's file, the module's MINE, at which this process looks, too."""
    found = root.parent / "mine"
    found.mkdir()
    (found / "mine.py").write_text(request.module.MINE)
    registry.use(found)
    yield found
    registry.use(None)
