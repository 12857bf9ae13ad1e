"""A batch that could not be rebuilt is tried again, at longer and longer intervals, until it is there or gone."""

import os
import shutil
from pathlib import Path

import pytest

from common import outputs, queue, recovery
from common.errors import BrokerUnavailable, LedgerIncomplete, StorageUnavailable
from common.explain import explain_batch
from common.ledger import Connection, batches, keys, rebuilds
from common.ledger.rebuilds import FIRST_PAUSE_SECONDS, MOST_PAUSE_SECONDS
from common.options import read_options
from common.submission import Submitter
from services.worker.finish import finish as write_results
from services.worker.following import follow
from tests.conftest import StartWorker
from tests.integration.recovery_support import SEED, again, assert_whole, run_jobs
from tests.support import counted, dump, wait_for


def damage(root: Path, batch: int) -> Path:
    """Make the batch's notes unreadable; returns their file."""
    notes = root / str(batch) / outputs.CONTROL_NAME
    notes.write_text('{"held": 1')
    return notes


def make_unreadable(root: Path, batch: int) -> Path:
    """Let the system refuse to say whether the batch has a summary, even to root; returns its path."""
    summary = root / str(batch) / outputs.SUMMARY_NAME
    summary.symlink_to("x" * 300)
    return summary


def pause_over(connection: Connection) -> None:
    """As when the time until the next try has passed."""
    connection.command("DEL", keys.REBUILD_PAUSE)


def test_it_comes_back_when_it_can(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tried again after a time, which doubles up to an hour; then it is there with what it had done."""
    broken = submitter.submit(5, SEED)
    run_jobs(connection, root, broken.id, 2)
    good = submitter.submit(5, SEED)
    notes = damage(root, broken.id)
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == 1
    pauses = []
    for _ in range(8):
        assert not recovery.is_needed(connection)
        assert again(connection, redis_url, root) == 0
        pauses.append(int(connection.command("TTL", keys.REBUILD_PAUSE)))
        pause_over(connection)
        assert recovery.is_needed(connection)
        assert again(connection, redis_url, root) == 0
    expected = [min(FIRST_PAUSE_SECONDS * 2**tries, MOST_PAUSE_SECONDS) for tries in range(8)]
    assert pauses == pytest.approx(expected, abs=5)
    assert capsys.readouterr().out.count("batch.not_rebuilt") == 9
    notes.unlink()
    pause_over(connection)
    assert again(connection, redis_url, root) == 1
    pause_over(connection)
    before = dump(connection)
    assert not recovery.is_needed(connection)
    assert again(connection, redis_url, root) == 0
    assert dump(connection) == before
    assert sorted(batches.all_ids(connection)) == [broken.id, good.id]
    assert run_jobs(connection, root, broken.id) == [1, 2, 3, 3, 4, 4, 5, 5], "of both, without 1 and 2 of the first"
    for spec in (broken, good):
        assert_whole(connection, root, spec)


def test_only_tries_after_a_pause_make_the_next_one_longer(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first is repeated without one while Redis refuses another batch."""
    broken, refused = submitter.submit(5, SEED), submitter.submit(5, SEED)
    damage(root, broken.id)
    connection.command("FLUSHALL")

    def submit(*_: object, **__: object) -> None:
        raise BrokerUnavailable("Redis answers with an error")

    with monkeypatch.context() as patch:
        patch.setattr(batches, "submit", submit)
        for _ in range(5):
            with pytest.raises(BrokerUnavailable):
                again(connection, redis_url, root)
    assert again(connection, redis_url, root) == 1
    assert batches.all_ids(connection) == [refused.id]
    for seconds in (FIRST_PAUSE_SECONDS, 2 * FIRST_PAUSE_SECONDS):
        assert seconds / 2 < int(connection.command("TTL", keys.REBUILD_PAUSE)) <= seconds
        pause_over(connection)
        assert again(connection, redis_url, root) == 0


def test_a_description_that_could_not_be_read(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named, and tried again, too."""
    spec = submitter.submit(5, SEED)
    path = root / str(spec.id) / outputs.SPEC_NAME
    whole = path.read_bytes()
    path.write_bytes(whole[:20])
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == 0
    assert str(path.parent) in capsys.readouterr().out
    path.write_bytes(whole)
    pause_over(connection)
    assert again(connection, redis_url, root) == 1
    run_jobs(connection, root, spec.id)
    assert_whole(connection, root, spec)


def test_a_directory_that_cannot_be_read_keeps_no_other_from_it(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """Neither what depends on a batch that has ended, nor a submit that asks for what is still to be rebuilt."""
    ended = submitter.submit(1, SEED)
    run_jobs(connection, root, ended.id)
    assert write_results(connection, root, ended.id, "w")
    unreadable, good = submitter.submit(5, SEED), submitter.submit(5, SEED, idempotency_key="k")
    follower = submitter.submit(5, SEED, options=read_options({"dependency": f"afterok:{ended.id}"}))
    summary = make_unreadable(root, unreadable.id)
    connection.command("FLUSHALL")
    with pytest.raises(LedgerIncomplete):
        submitter.submit(5, SEED, idempotency_key="k")
    other = submitter.submit(5, SEED, idempotency_key="other")
    assert again(connection, redis_url, root) == 3
    assert sorted(batches.all_ids(connection)) == [good.id, follower.id, other.id]
    summary.unlink()
    pause_over(connection)
    assert again(connection, redis_url, root) == 1
    assert batches.exists(connection, unreadable.id)


@pytest.mark.parametrize("refused", [False, True])
def test_what_depends_on_it_waits(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, refused: bool
) -> None:
    """How it ends is open until it is there: nothing is cancelled for it, or let go, or passed over."""
    first = submitter.submit(2, SEED)
    run_jobs(connection, root, first.id, 1)
    kinds = ("afterok", "afternotok", "afterany", "aftercorr")
    specs = [
        submitter.submit(
            2, SEED, options=read_options({"dependency": f"{kind}:{first.id}", "kill_on_invalid_dependency": True})
        )
        for kind in kinds
    ]
    path = root / str(first.id) / outputs.SPEC_NAME
    whole = path.read_bytes()
    path.write_bytes(whole if refused else whole[:20])
    if refused:
        make_unreadable(root, first.id)
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == len(specs)
    app = queue.make_app(redis_url)
    follow(connection, app, root)
    assert run_jobs(connection, root, specs[0].id) == []
    assert [counted(connection, spec.id) for spec in specs] == [{"PENDING": 2}] * 4
    assert "could not be rebuilt" in str(explain_batch(connection, specs[0].id))
    path.write_bytes(whole)
    (path.parent / outputs.SUMMARY_NAME).unlink(missing_ok=True)
    pause_over(connection)
    assert again(connection, redis_url, root) == 1
    follow(connection, app, root)
    assert run_jobs(connection, root, first.id) == [1, 1, 1, 2, 2, 2, 2]
    assert [counted(connection, spec.id) for spec in specs] == [
        {"CANCELLED": 2} if kind == "afternotok" else {"COMPLETED": 2} for kind in kinds
    ]


@pytest.mark.parametrize("gone", [False, True])
def test_a_volume_that_cannot_be_read_is_not_an_empty_one(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, gone: bool
) -> None:
    """Whoever asks for what is to be rebuilt is told to try again: 503."""
    spec = submitter.submit(5, SEED, idempotency_key="k")
    connection.command("FLUSHALL")
    if gone:
        shutil.rmtree(root)
    else:
        make_unreadable(root, spec.id)
        # In the way of the file that a probe writes.
        (root / f".probe-{os.getpid()}").mkdir()
    with pytest.raises(StorageUnavailable):
        submitter.submit(5, SEED, idempotency_key="k")
    assert again(connection, redis_url, root) == 0
    assert not batches.is_marked(connection)


def test_a_directory_that_is_gone_is_not_tried_for_ever(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """Somebody has given the batch up; and another batch that was never accepted is not taken for one of these."""
    spec, other = submitter.submit(5, SEED), submitter.submit(5, SEED)
    damage(root, spec.id)
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == 1
    shutil.rmtree(root / str(spec.id))
    pause_over(connection)
    (root / "9").mkdir()
    shutil.copy(root / str(other.id) / outputs.SPEC_NAME, root / "9")
    known = batches.all_ids(connection)
    assert again(connection, redis_url, root) == 0
    assert batches.all_ids(connection) == known
    pause_over(connection)
    assert rebuilds.due(connection) == []


def test_a_worker_tries_again(submitter: Submitter, connection: Connection, root: Path, worker: StartWorker) -> None:
    """Nobody has to do anything but to mend the volume."""
    spec = submitter.submit(5, SEED)
    notes = damage(root, spec.id)
    connection.command("FLUSHALL")
    started = worker()
    wait_for(lambda: connection.command("HLEN", keys.NOT_REBUILT), 20, "the first try", started.text)
    notes.unlink()
    wait_for(lambda: batches.is_marked(connection), 20, "the end of the first try", started.text)
    pause_over(connection)
    wait_for(lambda: batches.exists(connection, spec.id), 20, "the second try", started.text)
    wait_for(lambda: batches.view(connection, spec.id).finished, 30, "the end", lambda: counted(connection, spec.id))
    assert counted(connection, spec.id) == {"COMPLETED": 5}
