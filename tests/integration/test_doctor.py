"""The doctor beside a batch that runs: what moves is no violated promise, what stands still is looked at."""

from pathlib import Path

import pytest

from batchsim import doctor
from common.ledger import Connection
from common.settings import Settings
from common.submission import Submitter
from tests.integration.recovery_support import run_jobs


@pytest.mark.parametrize("moves", [True, False])
def test_a_batch_that_moves_meanwhile(
    submitter: Submitter,
    connection: Connection,
    redis_url: str,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    moves: bool,
) -> None:
    """A job of it ends between two looks of the audit; or nothing does, and the doctor says what is wrong."""
    spec = submitter.submit(5, 1)
    real = doctor.audit

    def audit(*given: object, **more: object) -> list[str]:
        if moves:
            run_jobs(connection, root, spec.id, 1)
        return ["The counters and the ranges differ.", *real(*given, **more)]  # type: ignore[arg-type]

    monkeypatch.setattr(doctor, "audit", audit)
    found = list(doctor.examine(Settings(_env_file=None, redis_url=redis_url, output_dir=root), 5))  # type: ignore[call-arg]
    said = "runs, and moves while it is examined; look again when it has ended"
    expected = (said, False) if moves else ("The counters and the ranges differ.", True)
    assert found == [(f"batch {spec.id}: {expected[0]}", expected[1])]
