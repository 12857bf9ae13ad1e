"""What the ledger cannot take: no text of a job, whatever bytes are in it; and when it must refuse, nothing hangs."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from common import queue
from common.batch import INITIAL_RANGES, LEAST_RANGES, BatchSpec, JobState, Reason
from common.errors import LedgerFault
from common.explain import explain_job
from common.ledger import Connection, batches, control, keys, ranges, table
from common.ledger.table import record_dtype
from common.options import read_options
from common.programs.program import Program
from common.settings import Settings
from common.simulations import registry
from common.submission import Submitter
from services.worker import failure
from services.worker.board import Board
from services.worker.guard import Guard
from services.worker.slot import Slot
from tests.conftest import StartWorker
from tests.integration.api_support import MakeClient, assert_problem
from tests.integration.ledger_support import submit
from tests.support import counted, wait_for

# A name as the kernel has it, which need not be UTF-8.
ODD_NAME = b"caf\xe9.dat".decode(errors="surrogateescape")
ODD = '''
from batchsim import simulation

@simulation(outputs={"x": float})
def odd(rng):
    """Cannot open a file."""
    raise ValueError("data\\udcff.csv")
'''


def program(submitter: Submitter, jobs: int) -> BatchSpec:
    """A batch of a program with such a word, whose job 2 fails."""
    words = ("/bin/sh", "-c", "test {index} != 2", ODD_NAME)
    return submitter.submit(jobs, 1, program=Program(words, "/tmp"))


@pytest.fixture
def slot(connection: Connection, redis_url: str, root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Slot]:
    """A slot in this process; it gives up when the ledger's answer takes it too long."""
    monkeypatch.setattr(Guard, "install", lambda _guard: None)
    app, board = queue.make_app(redis_url), Board.create(root.parent / "board", 1)
    given = Settings(_env_file=None, redis_url=redis_url, output_dir=root, slice_seconds=60)  # type: ignore[call-arg]
    alarm = threading.Timer(90, board.drain)
    alarm.start()
    yield Slot(given, app, board, "w", 0)
    alarm.cancel()
    app.close()


def test_a_text_that_is_not_utf8_is_told_all_the_same(
    submitter: Submitter, connection: Connection, root: Path, worker: StartWorker
) -> None:
    """Of a program's words and of a simulation's error; the batch ends, and its errors can be read."""
    sims = root.parent / "mine"
    sims.mkdir()
    (sims / "odd.py").write_text(ODD, encoding="ascii")
    by_word = program(submitter, 3)
    started = worker(SIMULATIONS_DIR=sims)
    registry.use(str(sims))
    by_error = submitter.submit(2, 1, options=read_options({"simulation": "odd"}))
    registry.use("")
    for spec, shown in ((by_word, r"caf\udce9.dat"), (by_error, r"data\udcff.csv")):
        wait_for(lambda spec=spec: batches.view(connection, spec.id).finished, 60, "the end", started.text)  # type: ignore[misc]
        assert shown in batches.failures(connection, spec.id)[2]
        assert shown in (root / str(spec.id) / "errors.txt").read_text(encoding="utf-8")
    assert counted(connection, by_word.id) == {"COMPLETED": 2, "FAILED": 1}


def test_an_error_of_a_script_is_no_absence_of_redis(connection: Connection) -> None:
    """It is known as what it is."""
    spec = submit(connection, 1)
    connection.command("DEL", keys.ranges(spec.id))
    connection.command("SET", keys.ranges(spec.id), "no set")
    with pytest.raises(LedgerFault, match="WRONGTYPE") as caught:
        control.adjust(connection, spec.id, "held", 1)
    assert not caught.value.retryable


def test_an_error_of_a_script_is_500_to_a_client(connection: Connection, make_client: MakeClient) -> None:
    """Not 503, which says that trying again can help."""
    client = make_client()
    spec = submit(connection, 1)
    connection.command("DEL", keys.ranges(spec.id))
    connection.command("SET", keys.ranges(spec.id), "no set")
    with capture_logs() as said:
        answer = client.post(f"/batches/{spec.id}/cancel")
    assert_problem(answer, 500)
    assert "Retry-After" not in answer.headers
    assert [line["event"] for line in said] == ["request.failed"]


def test_a_slice_that_the_ledger_refuses_ends(
    submitter: Submitter, connection: Connection, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job with which it does is found and FAILED, and says why; its neighbours in the slice complete."""
    monkeypatch.setattr(failure, "valid_text", str)
    connection.command("SET", keys.SLOTS, 1)
    spec = program(submitter, INITIAL_RANGES + 1)
    with capture_logs() as said:
        for _ in range(LEAST_RANGES + ranges.MAX_CRASHES + 1):
            slot.serve(spec.id, "", "default")
    # Once with the whole slice.
    assert [line["event"] for line in said].count("slot.failed") == 1 + ranges.MAX_CRASHES
    assert counted(connection, spec.id) == {"COMPLETED": INITIAL_RANGES, "FAILED": 1}
    record = table.read(connection, spec.id, 2, 1, record_dtype(spec.outputs))[0]
    assert (record["state"], record["reason"]) == (JobState.FAILED, Reason.CrashLimit)
    assert "The slot failed 5 times at this job, at last so: LedgerFault" in batches.failures(connection, spec.id)[2]
    assert any("slot failed: LedgerFault" in line for line in explain_job(connection, spec.id, 2).details)
