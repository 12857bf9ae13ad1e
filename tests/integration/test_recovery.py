"""Redis is emptied, the volume stays: what is there is kept, only what is missing runs, and nothing else."""

from pathlib import Path

import numpy as np
import pytest

from common import outputs, queue
from common.audit import audit
from common.batch import BatchSpec, JobState
from common.control import Controller
from common.errors import LedgerIncomplete
from common.ledger import Connection, batches, keys, ranges
from common.ledger.table import read, record_dtype
from common.options import read_options
from common.settings import Settings
from common.submission import Submitter
from services.worker.finish import finish as write_results
from tests.integration.api_support import MakeClient
from tests.integration.recovery_support import SEED, again, assert_whole, claim, run_jobs, waiting
from tests.support import OUTPUTS, counted, dump, expected_csv, expected_row, files, slice_of


@pytest.mark.parametrize("done", [0, 1, 37, 100])
def test_only_the_missing_jobs_run_again(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, done: int
) -> None:
    """After a FLUSHALL the jobs with a file are COMPLETED, the others wait once each, and the batch ends complete."""
    spec = submitter.submit(100, SEED)
    ran = run_jobs(connection, root, spec.id, done)
    before = files(root / str(spec.id))
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == 1
    assert batches.view(connection, spec.id).spec == spec
    missing = [index for index in range(1, 101) if index not in ran]
    assert waiting(connection, spec.id) == missing
    open_ranges = len(ranges.open_ranges(connection, spec.id))
    assert ranges.owed(connection, queue.QUEUE) == (open_ranges, open_ranges)
    assert audit(connection, root, spec.id) == []
    assert files(root / str(spec.id)) == before
    assert run_jobs(connection, root, spec.id) == missing
    assert_whole(connection, root, spec)


def test_kept_jobs_have_their_results_in_the_ledger(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """Records and statistics of kept jobs are what their files say; the others' records are empty."""
    spec = submitter.submit(70, SEED)
    ran = run_jobs(connection, root, spec.id, 41)
    connection.command("FLUSHALL")
    again(connection, redis_url, root)
    table = read(connection, spec.id, 1, 70, record_dtype(OUTPUTS))
    sums = [expected_row(SEED, i)[1] if i in ran else 0 for i in range(1, 71)]
    assert table["out:sum"].tolist() == sums
    assert (table["state"] == JobState.COMPLETED).tolist() == [i in ran for i in range(1, 71)]
    kept = np.array([s for s in sums if s])
    found = batches.statistics(connection, spec.id, OUTPUTS)["sum"]
    assert (found.n, found.min, found.max) == (len(ran), kept.min(), kept.max())
    assert found.mean == pytest.approx(kept.mean(), rel=1e-12)
    assert found.standard_deviation == pytest.approx(kept.std(ddof=1), rel=1e-12)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\0" * 52,
        b"numbers,sum,mean\r\n",
        b"numbers,sum,mean\r\n,,\r\n",
        b"\xff\xfe",
        b'numbers,sum\r\n"[1]",3\r\n',
    ],
)
def test_a_file_that_cannot_be_read_is_not_done(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, content: bytes
) -> None:
    """An empty, zeroed, headless or foreign file is a missing one: its job runs again and the file is whole then."""
    spec = submitter.submit(5, SEED)
    run_jobs(connection, root, spec.id, 4)
    (root / str(spec.id) / "job_2.csv").write_bytes(content)
    connection.command("FLUSHALL")
    again(connection, redis_url, root)
    assert waiting(connection, spec.id) == [2, 5]
    run_jobs(connection, root, spec.id)
    assert_whole(connection, root, spec)


def test_a_torn_file_is_not_done_wherever_it_was_torn(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """A file that ends at any byte before its last is missing: '608,60' is not the result 608, 60.8."""
    whole = expected_csv(SEED, 1)
    spec = submitter.submit(len(whole), SEED)
    place = root / str(spec.id)
    # Job i's file is cut after i bytes; the last one is whole.
    for index in range(1, len(whole) + 1):
        (place / outputs.job_name(index)).write_bytes(whole[:index])
    connection.command("FLUSHALL")
    again(connection, redis_url, root)
    kept = sorted(set(range(1, len(whole) + 1)) - set(waiting(connection, spec.id)))
    assert {index: whole[:index] for index in kept} == {len(whole): whole}


def test_foreign_files_in_the_directory_do_not_count(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """Files of no job of the batch, and directories with a job's name, are passed over."""
    spec = submitter.submit(5, SEED)
    for name in ("job_6.csv", "job_0.csv", "job_01.csv", "job_1.csv.bak", "notes.txt"):
        (root / str(spec.id) / name).write_bytes(expected_csv(SEED, 1))
    (root / str(spec.id) / "job_3.csv").mkdir()
    connection.command("FLUSHALL")
    again(connection, redis_url, root)
    assert waiting(connection, spec.id) == [1, 2, 3, 4, 5]


def test_recover_happens_once(submitter: Submitter, connection: Connection, redis_url: str, root: Path) -> None:
    """The second worker that looks finds the marker and changes nothing; while one recovers the others wait."""
    spec = submitter.submit(5, SEED)
    assert again(connection, redis_url, root) == 0
    connection.command("FLUSHALL")
    with outputs.exclusive(root):
        assert again(connection, redis_url, root) == 0
    assert not batches.is_marked(connection)
    assert again(connection, redis_url, root) == 1
    before = dump(connection)
    assert again(connection, redis_url, root) == 0
    assert dump(connection) == before
    assert waiting(connection, spec.id) == [1, 2, 3, 4, 5]


def test_a_new_redis_and_an_empty_directory(connection: Connection, redis_url: str, root: Path) -> None:
    """The very first start finds nothing to recover, and says so for good."""
    assert again(connection, redis_url, root) == 0
    assert batches.is_marked(connection)


def test_several_batches_and_the_start_up_batch(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """All unfinished batches come back, each in its place; the start-up batch is the start-up batch again."""
    given = Settings(_env_file=None, num_jobs=6, seed=7, output_dir=root)  # type: ignore[call-arg]
    own = submitter.start_up(given, "c1")
    run_jobs(connection, root, own.id, 2)
    others = [submitter.submit(jobs, SEED) for jobs in (3, 80)]
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == 3
    assert batches.startup_id(connection) == own.id
    assert submitter.start_up(given, "c1") == own
    assert set(batches.all_ids(connection)) == {spec.id for spec in (own, *others)}
    assert [audit(connection, root, spec.id) for spec in (own, *others)] == [[], [], []]
    assert len(run_jobs(connection, root, own.id)) == 4 + 3 + 80
    for spec in (own, *others):
        assert_whole(connection, root, spec)


def test_finished_and_older_batches_are_left_alone(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """A batch with its summary.json is finished; an older start-up batch was ended on purpose: neither comes back."""
    finished = submitter.submit(3, SEED)
    run_jobs(connection, root, finished.id)
    assert write_results(connection, root, finished.id, "w")
    given = Settings(_env_file=None, num_jobs=4, seed=1, output_dir=root)  # type: ignore[call-arg]
    older = submitter.start_up(given, "c1")
    run_jobs(connection, root, older.id, 2)
    newer = submitter.start_up(given.model_copy(update={"num_jobs": 5}), "c2")
    assert (root / str(older.id) / "batch.json").exists()
    before = {path: path.read_bytes() for path in (root / str(finished.id)).iterdir()}
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == 1
    assert batches.all_ids(connection) == [newer.id]
    assert {path: path.read_bytes() for path in (root / str(finished.id)).iterdir()} == before


def test_no_id_is_used_again(submitter: Submitter, connection: Connection, redis_url: str, root: Path) -> None:
    """After the recovery a new batch gets a number above all that the volume knows, finished or not."""
    specs = [submitter.submit(2, SEED) for _ in range(3)]
    run_jobs(connection, root, specs[2].id)
    write_results(connection, root, specs[2].id, "w")
    connection.command("FLUSHALL")
    again(connection, redis_url, root)
    fresh = submitter.submit(2)
    assert fresh.id > specs[2].id
    assert outputs.read_spec(root / str(specs[2].id)) == specs[2]


def test_the_idempotency_key_survives(submitter: Submitter, connection: Connection, redis_url: str, root: Path) -> None:
    """A client that repeats its submit after the loss gets its batch, not a second one."""
    spec = submitter.submit(5, SEED, idempotency_key="k")
    connection.command("FLUSHALL")
    again(connection, redis_url, root)
    assert submitter.submit(5, SEED, idempotency_key="k") == spec


def test_a_key_stands_for_a_batch_that_was_changed(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """It is asked for as it was at first, whatever somebody has set since."""
    spec = submitter.submit(5, SEED, options=read_options({"max_fails": 4, "hold": True}), idempotency_key="k")
    controller = Controller(connection, queue.make_app(redis_url), root)
    for field, value in (("max_fails", 3), ("priority", 7), ("held", 0)):
        controller.adjust(spec.id, field, value)
    connection.command("FLUSHALL")
    again(connection, redis_url, root)
    assert batches.view(connection, spec.id).priority == 7
    repeated = submitter.submit(5, SEED, options=read_options({"max_fails": 4, "hold": True}), idempotency_key="k")
    assert repeated == spec


def test_two_unfinished_batches_of_one_key_come_back(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """A key that had expired was used again: both were accepted, and the key stands for the newer one, as before."""
    older = submitter.submit(5, SEED, idempotency_key="nightly")
    connection.command("DEL", keys.idempotency("nightly"))
    newer = submitter.submit(6, SEED, idempotency_key="nightly")
    connection.command("FLUSHALL")
    assert again(connection, redis_url, root) == 2
    assert sorted(batches.all_ids(connection)) == [older.id, newer.id]
    assert submitter.submit(6, SEED, idempotency_key="nightly") == newer
    assert 0 < connection.command("TTL", keys.idempotency("nightly")) <= batches.IDEMPOTENCY_SECONDS
    for spec in (older, newer):
        run_jobs(connection, root, spec.id)
        assert_whole(connection, root, spec)


def test_a_batch_comes_back_whatever_its_key_stands_for(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """Also for a batch that was entered before it: that one keeps the key, since its client was told so."""
    older = submitter.submit(5, SEED, idempotency_key="k")
    connection.command("FLUSHALL")
    newer = BatchSpec(older.id + 1, 5, SEED, key="k")
    outputs.prepare(root, newer)
    batches.submit(connection, newer, idempotency_key="k")
    again(connection, redis_url, root)
    assert sorted(batches.all_ids(connection)) == [older.id, newer.id]
    assert batches.known_submit(connection, "k") == newer.id


def test_a_submit_repeated_before_the_rebuild_waits_for_it(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """A client that repeats its submit in that moment gets no second batch; one with another key need not wait."""
    spec = submitter.submit(5, SEED, idempotency_key="k")
    connection.command("FLUSHALL")
    before = sorted(root.iterdir())
    with pytest.raises(LedgerIncomplete):
        submitter.submit(5, SEED, idempotency_key="k")
    assert sorted(root.iterdir()) == before
    other = submitter.submit(5, SEED, idempotency_key="other")
    again(connection, redis_url, root)
    assert submitter.submit(5, SEED, idempotency_key="k") == spec
    assert sorted(batches.all_ids(connection)) == [spec.id, other.id]


def test_a_submit_that_depends_on_a_batch_before_its_rebuild_is_to_be_tried_again(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path, make_client: MakeClient
) -> None:
    """503 until it is there; of one that is nowhere, or whose results are written, 400 also in that moment."""
    spec, done = submitter.submit(5, SEED), submitter.submit(5, SEED)
    run_jobs(connection, root, done.id)
    assert write_results(connection, root, done.id, "w")
    connection.command("FLUSHALL")
    before, client = sorted(root.iterdir()), make_client()

    def submit(on: int) -> int:
        return client.post("/batches", json={"jobs": 5, "dependency": f"afterok:{on}"}).status_code

    for kind in ("afterok", "aftercorr"):
        with pytest.raises(LedgerIncomplete, match=f"batch {spec.id} is being rebuilt"):
            submitter.submit(5, options=read_options({"dependency": f"{kind}:{spec.id}"}))
    assert [submit(spec.id), submit(done.id), submit(99)] == [503, 400, 400]
    assert sorted(root.iterdir()) == before
    again(connection, redis_url, root)
    assert [submit(spec.id), submit(done.id), submit(99)] == [202, 400, 400]


def test_what_was_leased_before_is_refused_after(
    submitter: Submitter, connection: Connection, redis_url: str, root: Path
) -> None:
    """A slot that slept through the loss can neither commit nor renew nor reclaim: tokens are never given out twice."""
    spec = submitter.submit(5, SEED)
    old = [lease for _ in range(5) if (lease := claim(connection, spec.id))]
    assert len(old) == 5
    connection.command("FLUSHALL")
    again(connection, redis_url, root)
    new = claim(connection, spec.id)
    assert new is not None
    before = counted(connection, spec.id)
    for lease in old:
        verdict = ranges.commit(connection, lease, slice_of(lease.first, [1.0]), lease_seconds=60, slice_seconds=1)
        assert verdict.word == "stale"
    tokens = [lease.token for lease in old]
    assert ranges.renew(connection, dict.fromkeys(tokens, 0), lease_seconds=60) == tokens
    assert ranges.reclaim(connection, tokens) == []
    assert counted(connection, spec.id) == before == {"RUNNING": 1, "PENDING": 4}
    assert new.token not in tokens
