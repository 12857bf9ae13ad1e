"""A batch is rebuilt from its files: one that the ledger knows stays as it is, one that is broken stops nobody."""

from pathlib import Path
from typing import Any

import pytest
from kombu.exceptions import OperationalError

from common import outputs, queue, recovery
from common.audit import audit
from common.batch import BatchSpec, Reason
from common.control import Controller
from common.errors import BrokerUnavailable, StorageUnavailable
from common.explain import explain_batch
from common.ledger import Connection, batches, control, finishing, keys, ranges
from common.options import read_options
from common.recovery import rebuild
from common.settings import Settings
from common.submission import Submitter
from services.worker.finish import finish as write_results
from services.worker.following import follow
from tests.integration.explain_support import check
from tests.integration.ledger_support import take
from tests.integration.recovery_support import SEED, again, assert_whole, claim, run_jobs, write_job
from tests.support import counted, dump, expected_row, slice_of


@pytest.mark.parametrize("ended", [False, True])
def test_a_known_batch_is_left_as_it_is(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, ended: bool
) -> None:
    """A batch that was submitted before anybody recovered keeps its records, statistics and failures."""
    connection.command("DEL", keys.MARKER)
    spec = submitter.submit(5, SEED)
    lease = claim(connection, spec.id)
    assert lease is not None
    # One job failed, one was committed, one has its file and its commit is on the way.
    ranges.commit(connection, lease, slice_of(1, [0.0], failed=[1]), lease_seconds=60, slice_seconds=1)
    run_jobs(connection, root, spec.id, None if ended else 1)
    if not ended:
        assert claim(connection, spec.id)
        write_job(root, spec, 3)
    before = {key: value for key, value in dump(connection).items() if key.startswith(f"{keys.PREFIX}batch:".encode())}
    assert again(connection, redis_url, root) == 1
    after = {key: value for key, value in dump(connection).items() if key.startswith(f"{keys.PREFIX}batch:".encode())}
    assert sorted(key for key in before | after if before.get(key) != after.get(key)) == []
    assert audit(connection, root, spec.id) == []


def test_a_recovery_that_died_half_way_is_done_again(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the first try entered runs on meanwhile and is not counted twice; what it did not enter comes back too."""
    specs = [submitter.submit(5, SEED) for _ in range(2)]
    connection.command("FLUSHALL")
    with monkeypatch.context() as patch:
        patch.setattr(batches, "raise_last_id", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            again(connection, redis_url, root)
    assert batches.all_ids(connection) == [specs[0].id]
    lease = claim(connection, specs[0].id)
    assert lease is not None
    write_job(root, specs[0], 1)
    assert again(connection, redis_url, root) == 2
    work = slice_of(1, [float(expected_row(SEED, 1)[1])])
    assert ranges.commit(connection, lease, work, lease_seconds=60, slice_seconds=1, give_back=True).word == "released"
    run_jobs(connection, root, specs[0].id)
    for spec in specs:
        assert_whole(connection, root, spec)


def test_rebuild_counts_what_it_kept(submitter: Submitter, connection: Connection, redis_url: str, root: Path) -> None:
    """The number of kept jobs comes back, also over several chunks of files."""
    spec = submitter.submit(300, SEED)
    run_jobs(connection, root, spec.id, 123)
    connection.command("FLUSHALL")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recovery, "CHUNK_JOBS", 7)
        assert rebuild(connection, queue.make_app(redis_url), root / str(spec.id), spec) == 123
    assert audit(connection, root, spec.id) == []


def test_a_batch_whose_jobs_are_all_done_only_gets_its_results(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """Killed between the last job and the results files: nothing runs, the batch waits to be finished."""
    spec = submitter.submit(5, SEED)
    run_jobs(connection, root, spec.id)
    connection.command("FLUSHALL")
    again(connection, redis_url, root)
    assert finishing.awaited(connection) == [spec.id]
    assert ranges.owed(connection, queue.QUEUE) == (0, 0)
    assert_whole(connection, root, spec)


def test_a_spec_that_cannot_be_read_stops_nobody(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """A torn batch.json is passed over, the batches beside it come back."""
    broken, good = submitter.submit(5, SEED), submitter.submit(5, SEED)
    (root / str(broken.id) / "batch.json").write_text('{"id": 1, "jo')
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == 1
    assert batches.all_ids(connection) == [good.id]
    assert submitter.submit(1).id > good.id


@pytest.mark.parametrize(
    "content",
    [
        '{"cancelled": [[1]]}',
        '{"cancelled": 5}',
        '{"closed": [[0, 3]]}',
        '{"throttle": "x"}',
        '{"held": 1',
        "[]",
        "\0" * 9,
    ],
)
def test_notes_that_are_damaged_stop_nobody_else(
    submitter: Submitter,
    connection: Connection,
    redis_url: str,
    root: Path,
    content: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What people did to that batch is not forgotten without a word: it stays out, and is named with its directory."""
    before, broken, after = (submitter.submit(5, SEED) for _ in range(3))
    (root / str(broken.id) / outputs.CONTROL_NAME).write_text(content)
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == 2
    assert sorted(batches.all_ids(connection)) == [before.id, after.id]
    assert batches.is_marked(connection)
    said = [line for line in capsys.readouterr().out.splitlines() if "batch.not_rebuilt" in line]
    assert len(said) == 1
    assert str(root / str(broken.id)) in said[0]


def test_a_batch_of_an_unknown_kind_stops_nobody_else(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """One that a newer version wrote, say."""
    broken, good = submitter.submit(5, SEED), submitter.submit(5, SEED)
    path = root / str(broken.id) / outputs.SPEC_NAME
    path.write_text(path.read_text().replace('"files"', '"tape"'))
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == 1
    assert batches.all_ids(connection) == [good.id]


def test_a_volume_that_refuses_all_leaves_all_to_be_rebuilt(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk says nothing of a batch: none is given up, and the next call brings them all."""
    specs = [submitter.submit(5, SEED) for _ in range(2)]
    connection.command("FLUSHALL")

    def full(*_: object) -> None:
        raise StorageUnavailable("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(outputs, "prepare", full)
        patch.setattr(outputs, "probe", full)
        assert again(connection, redis_url, root) == 0
    assert not batches.is_marked(connection)
    assert again(connection, redis_url, root) == 2
    assert sorted(batches.all_ids(connection)) == [spec.id for spec in specs]


def test_a_batch_that_redis_refuses_is_tried_again(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others come back at once; as long as it does not, the ledger does not count as complete."""
    refused, good = submitter.submit(5, SEED), submitter.submit(5, SEED)
    connection.command("FLUSHALL")
    real = batches.submit

    def submit(own: Connection, spec: BatchSpec, **options: Any) -> Any:
        if spec.id == refused.id:
            raise BrokerUnavailable("Redis answers with an error")
        return real(own, spec, **options)

    with monkeypatch.context() as patch:
        patch.setattr(batches, "submit", submit)
        with pytest.raises(BrokerUnavailable):
            again(connection, redis_url, root)
    assert batches.all_ids(connection) == [good.id]
    assert not batches.is_marked(connection)
    assert again(connection, redis_url, root) == 2
    assert sorted(batches.all_ids(connection)) == [refused.id, good.id]


def test_messages_that_cannot_be_sent_are_owed(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The batch is in the ledger; the next ones are rebuilt, too."""
    specs = [submitter.submit(5, SEED) for _ in range(2)]
    connection.command("FLUSHALL")

    def unsent(*_: object) -> None:
        raise OperationalError("away")

    monkeypatch.setattr(queue, "publish", unsent)
    assert again(connection, redis_url, root) == 2
    assert sorted(batches.all_ids(connection)) == [spec.id for spec in specs]
    assert ranges.owed(connection, queue.QUEUE) == (2, 0)


def test_resume_gives_the_batch_of_the_directory(submitter: Submitter, root: Path) -> None:
    """A batch that is known is resumed as it is; and how much of it was done is told."""
    given = Settings(_env_file=None, num_jobs=5, seed=9, output_dir=root)  # type: ignore[call-arg]
    first = submitter.start_up(given, "c1")
    assert submitter.resume() == (first, 0)
    connection = submitter._connection
    ranges.commit(connection, take(connection), slice_of(1, [1.0]), lease_seconds=60, slice_seconds=1)
    assert submitter.resume() == (first, 1)
    connection.command("FLUSHALL")
    write_job(root, first, 3)
    assert submitter.resume() == (first, 1)
    assert counted(connection, first.id) == {"COMPLETED": 1, "PENDING": 4}


def test_the_ledger_of_an_older_version_is_passed_over(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """Its keys are of other types; the batches that it had are rebuilt from the volume."""
    spec = submitter.submit(5, SEED)
    write_job(root, spec, 3)
    connection.command("FLUSHALL")
    for key in ("marker", "waiting:default", "clock", "batches", f"batch:{spec.id}", "leases"):
        connection.command("SET", f"bs:{key}", "of an older version")
    assert not batches.is_marked(connection)
    assert again(connection, redis_url, root) == 1
    run_jobs(connection, root, spec.id)
    assert_whole(connection, root, spec)


@pytest.mark.parametrize(
    ("reason", "max_fails", "met"),
    [
        (Reason.StopRule, None, True),
        (Reason.StopRule, 3, True),
        (Reason.MaxFails, 3, False),
        (None, None, False),
        (None, 3, False),
    ],
)
@pytest.mark.parametrize("later", [False, True])
def test_what_a_finished_predecessor_came_to(
    submitter: Submitter,
    connection: Connection,
    redis_url: str,
    root: Path,
    reason: Reason | None,
    max_fails: int | None,
    met: bool,
    later: bool,
) -> None:
    """By its files a batch whose stop rule was met has succeeded, one that was cancelled or given up has not.

    The limit is of the submit, or was set ``later``.
    """
    given = read_options({"until": "count(sum) >= 100000", "max_fails": None if later else max_fails})
    first = submitter.submit(4, SEED, options=given)
    if later and max_fails is not None:
        Controller(connection, queue.make_app(redis_url), root).adjust(first.id, "max_fails", max_fails)
    run_jobs(connection, root, first.id, 2)
    if reason:
        control.abort(connection, first.id, reason)
    else:
        control.cancel(connection, first.id)
    assert write_results(connection, root, first.id, "w")
    kinds = [("afterok", met), ("afternotok", not met), ("afterany", True)]
    specs = [submitter.submit(2, SEED, options=read_options({"dependency": f"{kind}:{first.id}"})) for kind, _ in kinds]
    for emptied in (False, True):
        if emptied:
            connection.command("FLUSHALL")
            assert again(connection, redis_url, root) == len(specs)
            assert not batches.exists(connection, first.id)
        found = [batches.view(connection, spec.id) for spec in specs]
        assert [(view.unmet, view.never) for view in found] == [(int(not runs), int(not runs)) for _, runs in kinds]


def test_elements_behind_a_finished_predecessor(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """Its stop rule was met, and Redis emptied: those whose counterpart completed run, the others cannot."""
    first = submitter.submit(4, SEED, options=read_options({"until": "count(sum) >= 100000"}))
    run_jobs(connection, root, first.id, 2)
    control.abort(connection, first.id, Reason.StopRule)
    assert write_results(connection, root, first.id, "w")
    spec = submitter.submit(4, SEED, options=read_options({"dependency": f"aftercorr:{first.id}"}))
    connection.command("FLUSHALL")
    again(connection, redis_url, root)
    assert explain_batch(connection, spec.id).reason == "Dependency", "nobody has looked at its files yet"
    follow(connection, queue.make_app(redis_url), root)
    assert batches.view(connection, spec.id).never == 1
    assert run_jobs(connection, root, spec.id) == [1, 2]
    said = explain_batch(connection, spec.id)
    check(said, "PENDING", "DependencyNeverSatisfied", "by its files it succeeded: this cannot be met")
    assert "requeue" not in said.advice
