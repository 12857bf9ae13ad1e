"""Everything that people, slots and deaths do to batches, in any order: the ledger stays consistent, and all ends.

The machine of ``test_ledger_machine.py`` predicts each answer; this one knows more steps, and what must be true after
each of them.
"""

from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from common import queue
from common.batch import BatchSpec, JobState, Reason
from common.ledger import Connection, batches, control, keys, ranges, workers
from common.ledger.ranges import Lease
from common.ledger.workers import WorkerInfo
from services.worker.following import follow
from tests.integration.ledger_support import (
    after,
    assert_consistent,
    claim,
    commit,
    expire,
    make_due,
    run_machine,
    states,
    strike,
)
from tests.integration.ledger_support import finished as note_finished

CHOICE = st.integers(0, 10**6)
MOST_BATCHES = 4
RETRIES = 2
SHORT = st.lists(st.integers(2, 9), min_size=1, max_size=3)
CHANGES = [
    ("held", 0),
    ("held", 1),
    ("throttle", 0),
    ("throttle", 1),
    ("throttle", 2),
    ("priority", -2),
    ("priority", 2),
    ("max_fails", 0),
    ("max_fails", 2),
    ("max_fails", 9),
]
ENDED = (JobState.FAILED, JobState.TIMEOUT, JobState.OUT_OF_MEMORY, JobState.CANCELLED, JobState.ABORTED)


class LedgerSteps(RuleBasedStateMachine):
    """Up to four batches that may depend on each other, four slots, people."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        # Leases as their holders know them, also such as were taken away.
        self.held: list[Lease] = []
        self.specs: list[BatchSpec] = []

    @initialize(sizes=SHORT, most_fails=st.sampled_from([None, 0, 1]), retries=st.sampled_from([0, RETRIES]))
    def begin(self, sizes: list[int], most_fails: int | None, retries: int) -> None:
        """An empty Redis, a batch."""
        self.connection.command("FLUSHALL")
        self.submit(sizes, {"retries": retries, "max_fails": most_fails}, None, 0)

    # ---- people -----------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self.specs) < MOST_BATCHES)
    @rule(
        sizes=SHORT,
        options=st.fixed_dictionaries(
            {"retries": st.sampled_from([0, 0, RETRIES])},
            optional={
                "throttle": st.integers(1, 3),
                "priority": st.integers(-1, 1),
                "max_fails": st.integers(0, 2),
                "hold": st.booleans(),
                "kill_on_invalid_dependency": st.booleans(),
            },
        ),
        kind=st.sampled_from([None, "afterok", "afterany", "afternotok", "aftercorr"]),
        choice=CHOICE,
    )
    def submit(self, sizes: list[int], options: dict[str, Any], kind: str | None, choice: int) -> None:
        """A batch, which may depend on one that is there; following element by element it has that one's size."""
        spans, first = [], 1
        on = self.specs[choice % len(self.specs)] if kind and self.specs else None
        for size in [on.jobs] if on and kind == "aftercorr" else sizes:
            spans.append((first, size))
            first += size
        dependency = ((kind, on.id),) if kind and on else ()
        spec = BatchSpec(len(self.specs) + 1, first - 1, 1, dependency=dependency, **options)
        batches.submit(self.connection, spec, ranges=spans)
        self.specs.append(spec)

    @rule(
        choice=CHOICE,
        first=st.integers(1, 20),
        count=st.integers(1, 9),
        state=st.sampled_from(["", "", "PENDING", "RUNNING"]),
    )
    def cancel(self, choice: int, first: int, count: int, state: str) -> None:
        """A part of a batch."""
        spec = self._spec(choice)
        before = states(self.connection, spec.id)
        running = batches.running_jobs(self.connection, spec.id)
        done, tickets = control.cancel(self.connection, spec.id, first, first + count - 1, state=state)
        fits = {"": lambda _: True, "PENDING": lambda i: i not in running, "RUNNING": lambda i: i in running}[state]
        named = {i for i in range(first, min(first + count, spec.jobs + 1)) if before[i - 1] == "PENDING" and fits(i)}
        now = states(self.connection, spec.id)
        changed = {i for i, (one, two) in enumerate(zip(before, now, strict=True), 1) if one != two}
        assert changed == named, (changed, named)
        assert done == len(named)
        assert {now[i - 1] for i in changed} <= {"CANCELLED"}
        assert all(ticket.count > 0 for ticket in tickets)

    @rule(choice=CHOICE, first=st.integers(1, 20), whole=st.booleans())
    def stop(self, choice: int, first: int, whole: bool) -> None:
        """A stop rule is met, for the batch or for a point of it."""
        spec = self._spec(choice)
        span = (1, spec.jobs) if whole else (first, first + 2)
        control.abort(self.connection, spec.id, Reason.StopRule, *span)

    @rule(choice=CHOICE, jobs=st.sets(st.integers(1, 27), min_size=2, max_size=6))
    def cancel_scattered(self, choice: int, jobs: set[int]) -> None:
        """Several jobs of a batch in one step."""
        spec = self._spec(choice)
        before = states(self.connection, spec.id)
        done, _ = control.cancel_spans(self.connection, spec.id, [(job, job) for job in sorted(jobs)])
        now = states(self.connection, spec.id)
        changed = {i for i, (one, two) in enumerate(zip(before, now, strict=True), 1) if one != two}
        assert changed == {i for i in jobs if i <= spec.jobs and before[i - 1] == "PENDING"}
        assert done == len(changed)

    @rule(choice=CHOICE, change=st.sampled_from(CHANGES))
    def adjust(self, choice: int, change: tuple[Any, int]) -> None:
        """Hold, release, throttle, priority, max_fails."""
        control.adjust(self.connection, self._spec(choice).id, *change)

    @rule(choice=CHOICE, which=st.sampled_from(ENDED), finished=st.booleans())
    def requeue(self, choice: int, which: JobState, finished: bool) -> None:
        """All jobs of a state, job by job."""
        spec = self._spec(choice)
        chosen = [i for i, name in enumerate(states(self.connection, spec.id), 1) if name == which.name]
        if finished:
            note_finished(self.connection, spec.id)
        view = batches.view(self.connection, spec.id)
        if chosen:
            done = control.requeue(self.connection, spec.id, [(i, 1, which, 1) for i in chosen])
            # Somebody is writing the results of what has ended and is not finished.
            assert (done is None) == bool(view.ended and not view.finished)

    # ---- slots ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self._leases()) < 4)
    @rule(most=st.sampled_from([0, 0, 2]))
    def claim(self, most: int) -> None:
        """Whatever is first in the line, and never beyond its batch's throttle, hold or dependency."""
        runs = {spec.id: batches.view(self.connection, spec.id) for spec in self.specs}
        lease = claim(self.connection, most=most)
        if lease is None:
            assert self.connection.command("ZCARD", keys.waiting("default")) == 0
            return
        before = runs[lease.batch]
        assert not before.held
        assert not before.unmet
        assert not before.throttle or before.counters[JobState.RUNNING] < before.throttle
        self.held.append(lease)

    @rule(
        choice=CHOICE,
        done=st.integers(0, 5),
        bad=st.sets(st.integers(0, 4), max_size=3),
        give_back=st.sampled_from([False, False, True]),
    )
    def commit(self, choice: int, done: int, bad: set[int], give_back: bool) -> None:
        """Some jobs of a lease; those that fail are tried again if they may."""
        lease = self._lease(choice)
        if lease is None:
            return
        done = min(done, lease.count)
        spec = next(spec for spec in self.specs if spec.id == lease.batch)
        jobs = sorted(lease.first + i for i in bad if i < done)
        how = {"retried": jobs} if lease.tries < spec.retries else {"failed": jobs}
        verdict = commit(self.connection, lease, done, give_back=give_back or not done, **how)  # type: ignore[arg-type]
        self.held.remove(lease)
        if verdict.word in ("continue", "shrunk"):
            self.held.append(after(lease, verdict))

    @rule(all_of_them=st.booleans(), choice=CHOICE)
    def release(self, all_of_them: bool, choice: int) -> None:
        """The time of parked ranges comes, or only that of those which are due already."""
        if all_of_them:
            make_due(self.connection, self._spec(choice).id)
        ranges.release(self.connection)

    @precondition(lambda self: self.held)
    @rule(
        choice=CHOICE,
        job=st.integers(0, 17),
        state=st.sampled_from([None, None, JobState.TIMEOUT, JobState.OUT_OF_MEMORY]),
    )
    def strike(self, choice: int, job: int, state: JobState | None) -> None:
        """A slot's process dies at one of its jobs."""
        lease = self._lease(choice)
        if lease is None:
            return
        strike(self.connection, lease, lease.first + job % lease.count, state=state, limit=2)

    @rule(choice=CHOICE, how=st.sampled_from(["expired", "lost", "stopped"]))
    def reclaim(self, choice: int, how: str) -> None:
        """A worker is lost, or stops in good order."""
        lease = self._lease(choice)
        if lease is None:
            return
        if how == "expired":
            expire(self.connection, lease)
            ranges.reclaim(self.connection)
        else:
            ranges.reclaim(self.connection, [lease.token], crashed=how == "lost")

    @rule(slots=st.sampled_from([0, 2, 4]))
    def share(self, slots: int) -> None:
        """Slots come or go; those that idle get the end of a long range."""
        workers.heartbeat(self.connection, WorkerInfo("a", slots, 0, 1))
        ranges.share(self.connection, slice_seconds=-1)

    @rule()
    def follow(self) -> None:
        """The housekeeper releases what had completed before its follower came."""
        follow(self.connection, queue.make_app("memory://"), Path("outputs"))

    @rule(choice=CHOICE)
    def finish(self, choice: int) -> None:
        """The results files of a batch that has ended are written."""
        note_finished(self.connection, self._spec(choice).id)

    # ---- what must be true ------------------------------------------------------------------------------------------

    @invariant()
    def consistent(self) -> None:
        """After every step."""
        assert_consistent(self.connection)

    @invariant()
    def followers_never_overtake(self) -> None:
        """No element runs, or has run, whose counterpart has not completed, unless a person put it back."""
        for spec in self.specs:
            for _, on in spec.dependency if spec.dependency[:1] and spec.dependency[0][0] == "aftercorr" else ():
                events = control.events(self.connection, spec.id) + control.events(self.connection, on)
                if not any("requeued" in event["kind"] for event in events):
                    other = states(self.connection, on)
                    found = states(self.connection, spec.id)
                    assert all(other[i] == "COMPLETED" for i, name in enumerate(found) if name == "COMPLETED")

    def teardown(self) -> None:
        """From any state: released and without limits, slots that go on working end all that can end."""
        if not self.specs:
            return
        leases = self._leases()
        if leases:
            ranges.reclaim(self.connection, leases, crashed=False)
        for spec in self.specs:
            control.adjust(self.connection, spec.id, "held", 0)
            control.adjust(self.connection, spec.id, "throttle", 0)
        for _ in range(1000):
            self.follow()
            for spec in self.specs:
                make_due(self.connection, spec.id)
            ranges.release(self.connection)
            lease = claim(self.connection)
            if lease is None:
                break
            commit(self.connection, lease, lease.count)
        assert_consistent(self.connection)
        for spec in self.specs:
            view = batches.view(self.connection, spec.id)
            blocked = self.connection.command("ZCARD", keys.blocked(spec.id))
            assert view.ended or view.unmet or blocked, view

    def _spec(self, choice: int) -> BatchSpec:
        return self.specs[choice % len(self.specs)]

    def _lease(self, choice: int) -> Lease | None:
        """Mostly one that is held, seldom one that was taken away; when there is none, a new one."""
        alive = set(self._leases())
        real = [lease for lease in self.held if lease.token in alive]
        if not real:
            self.claim(0)
            real = [lease for lease in self.held if lease.token in set(self._leases())]
        real = self.held if choice % 8 == 0 else real
        return real[choice % len(real)] if real else None

    def _leases(self) -> list[str]:
        return [token.decode() for token in self.connection.command("ZRANGE", keys.LEASES, 0, -1)]


def test_whatever_people_and_slots_do_the_ledger_is_consistent(connection: Connection) -> None:
    """Every step of the ledger in any order: jobs, ranges, counters and sets fit together, and all ends."""
    run_machine(lambda: LedgerSteps(connection))  # type: ignore[arg-type]
