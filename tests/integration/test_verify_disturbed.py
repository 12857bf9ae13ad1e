"""Verification while workers shut down or are killed, and while Redis is away: no good job is accused."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from common import queue
from common.errors import BrokerUnavailable
from common.ledger import Connection, batches, keys, verifications, workers
from common.ledger.verifications import Part, Verification
from common.ledger.workers import WorkerInfo
from common.options import read_options
from common.settings import Settings
from common.simulations import registry
from common.submission import Submitter
from common.verification import Verifier
from services.worker.board import Board
from services.worker.guard import Guard
from services.worker.verifying import Verifying
from tests.conftest import StartWorker
from tests.integration.test_program_batches import submit
from tests.support import counted, finish, wait_for
from tests.unit.programs_support import executable

ERRANDS = queue.errands_name("default")
SLOW = '#!/bin/sh\necho x >> "${0%/*}/begun"\n[ -e "${0%/*}/slow" ] && sleep 100\nprintf \'{"x": %s}\' "$1"\n'
MINE = """
from batchsim import simulation

@simulation(outputs={"x": float})
def mine(rng):
    return {"x": rng.random()}
"""
# Goes on when somebody has said so anew.
LONG_IMPORT = """
import time
from pathlib import Path

from common.ledger import Connection

connection, said = Connection({url!r}), []
if connection.command("DEL", {alive!r}):
    said.append("before")
deadline = time.monotonic() + 30
while time.monotonic() < deadline and not connection.command("EXISTS", {alive!r}):
    time.sleep(0.01)
if connection.command("EXISTS", {alive!r}):
    said.append("meanwhile")
Path(__file__).with_name("said").write_text(" ".join(said))
"""


@pytest.fixture
def place(home: Path) -> Path:
    """Where a program lies that takes its time while a file says so, and notes each begin."""
    executable(home / "program", SLOW)
    return home


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_worker_that_ends(
    connection: Connection,
    redis_url: str,
    submitter: Submitter,
    place: Path,
    worker: StartWorker,
    number: signal.Signals,
) -> None:
    """Told to: the rest is run by the next worker, and counted once. Killed: the job is unchecked, not differing."""
    first = worker(SHUTDOWN_GRACE_SECONDS=90)
    batch = submit(submitter, ["./program", "{seed}"], 3, place).id
    wait_for(lambda: batches.view(connection, batch).finished, 60, "the end", lambda: counted(connection, batch))
    wait_for(lambda: workers.alive(connection), 20, "its heartbeat")
    (place / "slow").touch()
    (place / "begun").unlink()
    verifier = Verifier(connection, queue.make_app(redis_url))
    name = verifier.request(batch, 3)
    wait_for((place / "begun").exists, 20, "the first job", first.text)
    if number == signal.SIGKILL:
        os.killpg(first.pid, number)
    else:
        first.signal(number)
    first.wait(60)
    (place / "slow").unlink()
    worker()

    def done() -> Verification | None:
        found = verifier.look(batch, name)
        return found if found.done else None

    found = wait_for(done, 60, "the verification", lambda: verifier.look(batch, name))
    assert found is not None
    assert found.differing == []
    if number == signal.SIGKILL:
        assert (found.checked, [why for _, why in found.lost]) == (0, ["was lost while it ran again"])
    else:
        assert (found.checked, found.lost) == (3, [])


def silence(connection: Connection, batch: int, name: str) -> None:
    """As after the time in which somebody would have said that he has the first part."""
    connection.command("DEL", keys.verification(batch, name, 0, "alive"))


def run_here(connection: Connection, redis_url: str, root: Path, home: Path, part: Part) -> None:
    """Run a part in this process, as a slot of the worker "w" does."""
    board = Board.create(home / "board", 1)
    board.write(0, os.getpid())
    app, settings = queue.make_app(redis_url), Settings(redis_url=redis_url, output_dir=root)
    before = [signal.getsignal(number) for number in (signal.SIGALRM, signal.SIGUSR1)]
    try:
        Verifying(connection, app, settings, "w", board, board.recorder(0), Guard()).run(part)
    finally:
        for number, handler in zip((signal.SIGALRM, signal.SIGUSR1), before, strict=True):
            signal.signal(number, handler)


def test_a_message_that_is_lost(
    connection: Connection, redis_url: str, submitter: Submitter, place: Path, worker: StartWorker
) -> None:
    """Before anybody began: it is published again, once, and not while it waits in the queue."""
    first = worker()
    batch = submit(submitter, ["./program", "{seed}"], 3, place).id
    wait_for(lambda: batches.view(connection, batch).finished, 60, "the end", lambda: counted(connection, batch))
    wait_for(lambda: workers.alive(connection), 20, "its heartbeat")
    first.kill()
    # Its own may be some seconds old.
    workers.heartbeat(connection, WorkerInfo("w", 1, 0, 1))
    verifier = Verifier(connection, queue.make_app(redis_url))
    name = verifier.request(batch, 3)
    silence(connection, batch, name)
    assert not verifier.look(batch, name).done
    assert connection.command("LLEN", ERRANDS) == 1
    connection.command("DEL", ERRANDS)
    assert not verifier.look(batch, name).done
    assert connection.command("LLEN", ERRANDS) == 0, "somebody may have taken it just now"
    silence(connection, batch, name)
    for _ in range(2):
        assert not verifier.look(batch, name).done
        assert connection.command("LLEN", ERRANDS) == 1
    worker()
    found = wait_for(
        lambda: (seen := verifier.look(batch, name)).done and seen, 40, "it", lambda: verifier.look(batch, name)
    )
    assert found
    assert (found.checked, found.differing, found.lost) == (3, [], [])


def test_a_message_that_is_lost_again_and_again(connection: Connection, redis_url: str, submitter: Submitter) -> None:
    """As when its batch's file ends whoever reads it: after some tries its jobs are told as lost."""
    batch = submitter.submit(3).id
    finish(connection, batch)
    workers.heartbeat(connection, WorkerInfo("w", 1, 0, 1))
    verifier = Verifier(connection, queue.make_app(redis_url))
    name = verifier.request(batch, 3)
    for _ in range(verifications.MOST_ASKED_AGAIN):
        connection.command("DEL", ERRANDS)
        silence(connection, batch, name)
        assert not verifier.look(batch, name).done
        assert connection.command("LLEN", ERRANDS) == 1
    connection.command("DEL", ERRANDS)
    silence(connection, batch, name)
    verifier.look(batch, name)
    found = verifier.look(batch, name)
    assert (found.done, found.checked, found.differing) == (True, 0, [])
    assert found.lost == [(job, "was not begun: its message was lost") for job in (1, 2, 3)]
    assert connection.command("LLEN", ERRANDS) == 0


def test_a_part_that_is_passed_on_is_not_lost(
    connection: Connection, redis_url: str, submitter: Submitter, root: Path, home: Path
) -> None:
    """Whoever passes it on says so, since it is in no queue when the next one has taken it."""
    batch = submitter.submit(3).id
    finish(connection, batch)
    for name in ("w", "other"):
        workers.heartbeat(connection, WorkerInfo(name, 1, 0, 1))
    part = Part(batch, "v", 0, (1,), "w")
    verifications.begin(connection, batch, "v", [part])
    silence(connection, batch, "v")
    assert verifications.look(connection, batch, "v").silent == [0]
    run_here(connection, redis_url, root, home, part)
    assert connection.command("LLEN", ERRANDS) == 1
    assert verifications.look(connection, batch, "v").silent == []


def test_a_part_whose_files_take_long_to_import_is_not_lost(
    connection: Connection, redis_url: str, submitter: Submitter, root: Path, home: Path
) -> None:
    """Whoever looks meanwhile sees that a slot has it: said before the import, and again while it lasts."""
    (home / "mine.py").write_text(MINE)
    registry.use(home)
    try:
        batch = submitter.submit(1, options=read_options({"simulation": "mine"})).id
        part = Part(batch, "v", 0, (1,), "")
        verifications.begin(connection, batch, "v", [part])
        silence(connection, batch, "v")
        alive = keys.verification(batch, "v", 0, "alive")
        (home / "slow.py").write_text(LONG_IMPORT.format(url=redis_url, alive=alive))
        run_here(connection, redis_url, root, home, part)
    finally:
        registry.use(None)
    assert (home / "said").read_text().split() == ["before", "meanwhile"]


def test_a_redis_that_is_away(
    connection: Connection,
    redis_url: str,
    submitter: Submitter,
    root: Path,
    place: Path,
    worker: StartWorker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The report is made when it is back; and programs' files lie where the worker's end removes them."""
    started = worker()
    batch = submit(submitter, ["./program", "{seed}"], 2, place).id
    wait_for(lambda: batches.view(connection, batch).finished, 60, "the end", lambda: counted(connection, batch))
    started.kill()
    report, away = verifications.report, [True, True]

    def report_later(*given: Any) -> None:
        if away:
            away.pop()
            raise BrokerUnavailable("away")
        report(*given)

    monkeypatch.setattr(verifications, "report", report_later)
    part = Part(batch, "v", 0, (1, 2), "")
    verifications.begin(connection, batch, "v", [part])
    run_here(connection, redis_url, root, place, part)
    found = verifications.look(connection, batch, "v")
    assert (found.done, found.checked, found.differing, away) == (True, 2, [], [])
    assert (place / "verify-0").is_dir()
