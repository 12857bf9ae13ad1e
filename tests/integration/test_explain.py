"""Why jobs wait: each reason is brought about, and what is said names it, the facts, and a way on."""

import pytest

from common.batch import BatchSpec, Reason
from common.errors import InvalidInput, NotFound
from common.explain import explain_batch, explain_job
from common.ledger import Connection, batches, control, ranges, workers
from common.ledger.workers import WorkerInfo
from tests.integration.explain_support import check
from tests.integration.ledger_support import claim, commit, ids, make_due, submit, take


def serve(connection: Connection, slots: int, busy: int, *, partition: str = "default") -> None:
    """Let a worker say that it lives."""
    workers.heartbeat(connection, WorkerInfo(f"w-{partition}", slots, busy, 1, (partition,)))


def test_held(ledger: Connection) -> None:
    """JobHeldUser: what runs goes on, nothing is started."""
    spec = submit(ledger, 4, ranges=[(1, 2), (3, 2)])
    take(ledger)
    control.adjust(ledger, spec.id, "held", 1)
    check(explain_batch(ledger, spec.id), "RUNNING", "JobHeldUser", "It is held", "1 job still at work", "Slot w/0")
    check(explain_job(ledger, spec.id, 3), "PENDING", "JobHeldUser", "It is held")
    check(explain_job(ledger, spec.id, 1), "RUNNING", "", "Slot w/0 is at it")
    assert f"batchsim release {spec.id}" in explain_batch(ledger, spec.id).advice


def test_throttled(ledger: Connection) -> None:
    """JobArrayTaskLimit: as many run as may."""
    spec = submit(ledger, 4, throttle=2)
    take(ledger), take(ledger)
    check(explain_batch(ledger, spec.id), "RUNNING", "JobArrayTaskLimit", "2 jobs", "its throttle is 2")
    check(explain_job(ledger, spec.id, 4), "PENDING", "JobArrayTaskLimit", "its throttle is 2")
    assert f"batchsim update {spec.id} --throttle 4" in explain_batch(ledger, spec.id).advice


@pytest.mark.parametrize("kind", ["afterok", "afterany", "afternotok", "aftercorr"])
def test_dependency(ledger: Connection, kind: str) -> None:
    """Dependency: on what, and how far that is."""
    first = submit(ledger, 2)
    spec = submit(ledger, 2, dependency=((kind, first.id),))
    commit(ledger, take(ledger, first.id), 1, failed=[1])
    facts = f"{kind}:{first.id}: batch {first.id} is PENDING, 1 of its 2 jobs ended."
    check(explain_batch(ledger, spec.id), "PENDING", "Dependency", facts)
    check(explain_job(ledger, spec.id, 2), "PENDING", "Dependency", facts)
    assert f"batchsim explain {first.id}" in explain_batch(ledger, spec.id).advice


def test_of_several_dependencies_the_open_one_is_advised(ledger: Connection) -> None:
    """What is met is said to be; the advice is on the other."""
    one, two = submit(ledger, 1), submit(ledger, 1)
    spec = submit(ledger, 1, dependency=(("afterok", one.id), ("afterany", two.id)))
    commit(ledger, take(ledger, one.id), 1)
    found = explain_batch(ledger, spec.id)
    check(found, "PENDING", "Dependency", f"batch {one.id} is COMPLETED, 1 of its 1 job ended: met.", f"batch {two.id}")
    assert f"batchsim explain {two.id}" in found.advice


@pytest.mark.parametrize(
    ("kind", "failed", "advised"),
    [
        ("afterok", [1], "batchsim requeue {on}"),
        ("afternotok", [], "batchsim cancel {id}"),
        ("aftercorr", [1, 2], "batchsim requeue {on}"),
    ],
)
def test_dependency_never_satisfied(ledger: Connection, kind: str, failed: list[int], advised: str) -> None:
    """DependencyNeverSatisfied: it waits in vain, and what would help depends on the kind."""
    first = submit(ledger, 2, ranges=[(1, 2)])
    spec = submit(ledger, 2, dependency=((kind, first.id),))
    commit(ledger, take(ledger, first.id), 2, failed=failed)
    if kind == "aftercorr":
        check(explain_batch(ledger, spec.id), "PENDING", "Dependency", "2 of its 2 jobs ended.")
        ranges.unblock(ledger, spec.id, [], primed=f"{spec.id}:{first.id}")
    found = explain_batch(ledger, spec.id)
    check(found, "PENDING", "DependencyNeverSatisfied", f"{kind}:{first.id}: batch {first.id} is", "cannot be met")
    assert advised.format(on=first.id, id=spec.id) in found.advice
    check(explain_job(ledger, spec.id, 1), "PENDING", "DependencyNeverSatisfied", "cannot be met")


def test_a_dependency_whose_stop_rule_was_met(ledger: Connection) -> None:
    """It has succeeded, though ABORTED; what was not needed there cannot be followed, and a requeue would not help."""
    first, other = submit(ledger, 2, ranges=[(1, 2)], until="n >= 1"), submit(ledger, 1)
    met = submit(ledger, 2, dependency=(("afterok", first.id), ("afterany", other.id)))
    failing = submit(ledger, 2, dependency=(("afternotok", first.id),))
    element = submit(ledger, 2, dependency=(("aftercorr", first.id),))
    commit(ledger, take(ledger, first.id), 1)
    control.abort(ledger, first.id, Reason.StopRule)
    ranges.unblock(ledger, element.id, [], primed=f"{element.id}:{first.id}")
    facts = f"batch {first.id} is ABORTED by its stop rule, 2 of its 2 jobs ended"
    check(explain_batch(ledger, met.id), "PENDING", "Dependency", f"afterok:{first.id}: {facts}: met.")
    said = f"{facts}: this cannot be met, since it has succeeded."
    check(explain_batch(ledger, failing.id), "PENDING", "DependencyNeverSatisfied", said)
    found = explain_job(ledger, element.id, 2)
    check(found, "PENDING", "DependencyNeverSatisfied", f"{facts}: this cannot be met, since not all of them")
    assert "is not run" in found.advice
    assert f"batchsim cancel {element.id}" in found.advice


def test_what_did_not_fail_is_run_again_by_its_state(ledger: Connection) -> None:
    """A cancelled predecessor needs its state named, or a requeue would find nothing."""
    first = submit(ledger, 2, ranges=[(1, 2)])
    spec = submit(ledger, 1, dependency=(("afterok", first.id),))
    commit(ledger, take(ledger, first.id), 1, failed=[1])
    control.cancel(ledger, first.id)
    found = explain_batch(ledger, spec.id)
    check(found, "PENDING", "DependencyNeverSatisfied")
    assert f"`batchsim requeue {first.id} --state FAILED --state CANCELLED`" in found.advice


def test_one_of_two_dependencies_holds_up_what_is_released(ledger: Connection) -> None:
    """An element whose counterpart completed waits for the other batch only; one whose counterpart failed, in vain."""
    first, other = submit(ledger, 2, ranges=[(1, 2)]), submit(ledger, 1)
    spec = submit(ledger, 2, dependency=(("aftercorr", first.id), ("afterany", other.id)))
    ranges.unblock(ledger, spec.id, [], primed=f"{spec.id}:{first.id}")
    commit(ledger, take(ledger, first.id), 2, failed=[2])
    for found in (explain_batch(ledger, spec.id), explain_job(ledger, spec.id, 1)):
        check(found, "PENDING", "Dependency", f"afterany:{other.id}", f"aftercorr:{first.id}")
        assert f"batchsim explain {other.id}" in found.advice
    check(explain_job(ledger, spec.id, 2), "PENDING", "DependencyNeverSatisfied", f"aftercorr:{first.id}")


@pytest.mark.parametrize(
    ("kind", "outcomes", "reason", "said"),
    [
        ("afterok", {1000: "bad"}, "DependencyNeverSatisfied", "by its files it did not succeed: this cannot be met."),
        ("afternotok", {1000: "ok"}, "DependencyNeverSatisfied", "by its files it succeeded: this cannot be met."),
        ("afterok", {}, "Dependency", "is not in the ledger any more, and how it ended is not known."),
    ],
)
def test_a_dependency_that_the_ledger_forgot(
    ledger: Connection, kind: str, outcomes: dict[int, str], reason: str, said: str
) -> None:
    """What its files say of it; it is not advised to do what would answer that there is no such batch."""
    spec = BatchSpec(next(ids), 2, 1, dependency=((kind, 1000),))
    batches.submit(ledger, spec, outcomes=outcomes)
    found = explain_batch(ledger, spec.id)
    check(found, "PENDING", reason, f"{kind}:1000: batch 1000", said)
    assert "requeue" not in found.advice
    assert "explain" not in found.advice
    assert f"batchsim cancel {spec.id}" in found.advice


def test_a_forgotten_dependency_that_was_met(ledger: Connection) -> None:
    """It is said to be, beside the one that is open."""
    other = submit(ledger, 1)
    spec = BatchSpec(next(ids), 2, 1, dependency=(("afterok", 1000), ("afterok", other.id)))
    batches.submit(ledger, spec, outcomes={1000: "ok"})
    found = explain_batch(ledger, spec.id)
    check(found, "PENDING", "Dependency", "by its files it succeeded: met.")
    assert f"batchsim explain {other.id}" in found.advice


def test_killed_by_its_dependency(ledger: Connection) -> None:
    """It is CANCELLED, and says for whose sake."""
    first = submit(ledger, 1)
    spec = submit(ledger, 2, dependency=(("afterok", first.id),), kill_on_invalid_dependency=True)
    commit(ledger, take(ledger, first.id), 1, failed=[1])
    facts = ("cannot be met", f"batch {first.id} is FAILED")
    check(explain_batch(ledger, spec.id), "CANCELLED", "DependencyNeverSatisfied", "2 jobs CANCELLED", *facts)
    found = explain_job(ledger, spec.id, 2)
    check(found, "CANCELLED", "DependencyNeverSatisfied", *facts)
    assert f"batchsim requeue {spec.id} --state CANCELLED" in found.advice


def test_elements_of_aftercorr(ledger: Connection) -> None:
    """An element whose counterpart has completed waits for a slot, the others for theirs."""
    first = submit(ledger, 4, ranges=[(1, 4)])
    spec = submit(ledger, 4, dependency=(("aftercorr", first.id),))
    commit(ledger, take(ledger, first.id), 2)
    check(explain_job(ledger, spec.id, 1), "PENDING", "Resources", "No worker serves partition 'default'")
    check(explain_job(ledger, spec.id, 4), "PENDING", "Dependency", f"aftercorr:{first.id}", "2 of its 4 jobs ended")


def test_priority(ledger: Connection) -> None:
    """Priority: who goes first, and both numbers."""
    serve(ledger, 1, 1)
    spec, other = submit(ledger, 2, priority=-3), submit(ledger, 2, priority=5)
    found = explain_batch(ledger, spec.id)
    check(found, "PENDING", "Priority", f"Batch {other.id} goes first: its priority is 5, that of this one -3")
    assert f"batchsim update {spec.id} --priority 6" in found.advice
    check(
        explain_batch(ledger, other.id), "PENDING", "Resources", "Slots of partition 'default': 1, all of them at work"
    )
    control.adjust(ledger, other.id, "priority", 100)
    assert "--priority 100" in explain_batch(ledger, spec.id).advice


def test_a_batch_that_is_passed_over_goes_before_nobody(ledger: Connection) -> None:
    """Its priority is higher, but no worker that could run this one can run it; the next one in the line is named."""
    serve(ledger, 1, 1)
    other = WorkerInfo("other", 1, 1, 2, ("default",), ("mine:1",))
    lost = submit(ledger, 2, priority=10, simulation="mine", version="1")
    spec = submit(ledger, 2)
    found = explain_batch(ledger, spec.id)
    check(found, "PENDING", "Resources", "1, all of them at work")
    assert "wait there" not in " ".join(found.details)
    first = submit(ledger, 2, priority=3)
    check(explain_batch(ledger, spec.id), "PENDING", "Priority", f"Batch {first.id} goes first: its priority is 3")
    workers.heartbeat(ledger, other)
    check(explain_batch(ledger, spec.id), "PENDING", "Priority", f"Batch {lost.id} goes first: its priority is 10")


@pytest.mark.parametrize("partition", ["default", "gpu"])
def test_no_worker(ledger: Connection, partition: str) -> None:
    """Resources: nobody serves its partition, though others are served."""
    serve(ledger, 4, 0, partition="other")
    spec = submit(ledger, 2, partition=partition)
    found = explain_batch(ledger, spec.id)
    check(found, "PENDING", "Resources", f"No worker serves partition '{partition}'")
    assert ("WORKER_PARTITIONS=gpu" in found.advice) == (partition == "gpu")
    serving = "`batchsim serve --worker-partitions default,gpu`" if partition == "gpu" else "then `batchsim serve` goes"
    assert serving in found.advice


def test_all_slots_at_work(ledger: Connection) -> None:
    """Resources: how many slots there are, and with how many batches they are shared."""
    serve(ledger, 2, 2)
    spec = submit(ledger, 2)
    submit(ledger, 2)
    found = explain_batch(ledger, spec.id)
    check(found, "PENDING", "Resources", "2, all of them at work", "2 batches wait")
    assert "in compose `docker compose up --detach --no-recreate --scale worker=N`" in found.advice
    assert "`batchsim serve --workers 4`" in found.advice


def test_a_slot_is_idle(ledger: Connection) -> None:
    """It is about to start: nothing to do but wait."""
    serve(ledger, 3, 1)
    spec = submit(ledger, 2)
    found = explain_batch(ledger, spec.id)
    check(found, "PENDING", "Resources", "3, 2 of them idle")
    assert found.advice == "wait"


def test_begin_time(ledger: Connection) -> None:
    """BeginTime: it failed before, and when it is tried again."""
    spec = submit(ledger, 2, ranges=[(1, 2)], retries=3)
    commit(ledger, take(ledger), 2, retried=[2])
    check(explain_batch(ledger, spec.id), "PENDING", "BeginTime", "tried again from 20")
    found = explain_job(ledger, spec.id, 2)
    check(found, "PENDING", "BeginTime", "tried again from 20", "failed, tried again: ValueError: made by hand")
    assert "up to 3 times" in found.advice
    make_due(ledger, spec.id)
    ranges.release(ledger)
    check(explain_job(ledger, spec.id, 2), "PENDING", "Resources", "ValueError: made by hand")


def test_a_parked_job_while_others_wait(ledger: Connection) -> None:
    """Each job says why it itself waits."""
    spec = submit(ledger, 4, ranges=[(1, 2), (3, 2)], retries=3)
    commit(ledger, take(ledger), 2, retried=[2])
    check(explain_job(ledger, spec.id, 2), "PENDING", "BeginTime")
    check(explain_job(ledger, spec.id, 3), "PENDING", "Resources")
    check(explain_batch(ledger, spec.id), "PENDING", "Resources")


def test_in_hand(ledger: Connection) -> None:
    """A job further on in a range that a slot holds."""
    spec = submit(ledger, 9, ranges=[(1, 9)])
    take(ledger)
    check(explain_job(ledger, spec.id, 4), "PENDING", "", "Slot w/0 has it in hand, 3 jobs further on")
    check(explain_batch(ledger, spec.id), "RUNNING", "", "in the hands of slots", "Slot w/0 works on jobs 1-9")


def test_many_holders_are_not_all_listed(ledger: Connection) -> None:
    """Some, and how many more."""
    spec = submit(ledger, 20)
    while claim(ledger):
        pass
    found = explain_batch(ledger, spec.id)
    check(found, "RUNNING", "", "So do 15 other slots")


def test_what_does_not_exist(ledger: Connection) -> None:
    """An unknown batch is not found, a job outside names the numbers that there are."""
    spec = submit(ledger, 3)
    for ask in (lambda: explain_batch(ledger, 0), lambda: explain_job(ledger, 0, 1)):
        with pytest.raises(NotFound):
            ask()
    for job in (0, 4):
        with pytest.raises(InvalidInput, match="jobs from 1 to 3") as caught:
            explain_job(ledger, spec.id, job)
        assert caught.value.field == "job"
