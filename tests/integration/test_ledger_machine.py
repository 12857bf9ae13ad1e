"""The ledger as a state machine: whatever slots, messages and deaths do in whatever order, a model agrees with it."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from common.audit import audit
from common.batch import BatchSpec, JobState
from common.ledger import Connection, batches, keys, ranges, workers
from common.ledger.ranges import MAX_CRASHES, Lease, Slice, Verdict
from common.ledger.table import read, record_dtype
from common.ledger.workers import WorkerInfo
from common.statistics import moments
from tests.support import OUTPUTS, slice_of

SLOTS = 4
NOWHERE = Path("/nonexistent")
# A claim's message and its lease's time do not matter to what is true; every choice of them is a number to draw.
CHOICE = st.integers(0, 10**6)
VALUES = st.integers(-1000, 1000).map(lambda half: half / 2)


@dataclass
class Model:
    """What must be true of one batch."""

    jobs: int
    ended: dict[int, tuple[JobState, float]] = field(default_factory=dict)
    failures: set[int] = field(default_factory=set)
    crashes: int = 0
    cancelled: bool = False

    @property
    def open(self) -> list[int]:
        """The jobs that have no result and will get one."""
        return [] if self.cancelled else [index for index in range(1, self.jobs + 1) if index not in self.ended]

    def end(self, index: int, state: JobState, value: float) -> None:
        """Give the job its result; it must be the first one."""
        assert not self.cancelled
        assert index not in self.ended, f"job {index} was committed twice"
        self.ended[index] = (state, value)
        if state is not JobState.COMPLETED:
            self.failures.add(index)


@dataclass(frozen=True)
class Span:
    """An open range of the model."""

    batch: int
    first: int
    count: int
    crashes: int = 0


class LedgerMachine(RuleBasedStateMachine):
    """Two workers with two slots each, messages that are delivered twice or never, holders that die or wake up late."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self.connection = connection
        self.batches: dict[int, Model] = {}
        self.waiting: dict[str, Span] = {}
        self.leased: dict[str, Span] = {}
        self.expired: set[str] = set()
        # Every lease as its holder knows it: also those that were taken away since, and that it may still commit.
        self.held: list[Lease] = []
        # Every commit that was sent, to be sent again.
        self.sent: list[tuple[Lease, Slice, bool]] = []
        # Every message there ever was.
        self.messages: list[tuple[int, str]] = []
        self.names = itertools.count()

    @initialize()
    def begin(self) -> None:
        """An empty Redis, and a batch that one slot took whole before the three others were there."""
        self.connection.command("FLUSHALL")
        self.submit([15])
        self.claim(0, "waiting", 0)
        for name in ("a", "b"):
            workers.heartbeat(self.connection, WorkerInfo(name, SLOTS // 2, 0, 1))
        assert int(self.connection.command("GET", keys.SLOTS)) == SLOTS

    # ---- what users, slots and the housekeeper do ---------------------------------------------------------------

    @precondition(lambda self: len(self.batches) < 2)
    @rule(sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4))
    def submit(self, sizes: list[int]) -> None:
        """A batch, cut into ranges of these sizes."""
        edges = [0, *itertools.accumulate(sizes)]
        spans = [(low + 1, high - low) for low, high in itertools.pairwise(edges)]
        spec = BatchSpec(len(self.batches) + 1, edges[-1], 1)
        _, offered = batches.submit(self.connection, spec, ranges=spans)
        self.batches[spec.id] = Model(spec.jobs)
        assert [(first, count) for _, first, count in offered] == spans
        for token, first, count in offered:
            self.waiting[token] = Span(spec.id, first, count)
            self.messages.append((spec.id, token))

    @precondition(lambda self: len(self.leased) < SLOTS)
    @rule(
        choice=CHOICE, kind=st.sampled_from(["any", "waiting", "lost", "foreign"]), most=st.sampled_from([0, 0, 1, 3])
    )
    def claim(self, choice: int, kind: str, most: int) -> None:
        """Any message, new or delivered before, or of nothing: a range of the least served batch."""
        message = self._message(choice, kind)
        before = dict(self.waiting)
        least = self.connection.command("ZRANGE", keys.WAITING, 0, 0)
        lease, further = ranges.claim(
            self.connection,
            message,
            worker="a",
            slot=f"a/{next(self.names)}",
            lease_seconds=60,
            slice_seconds=1,
            jobs_per_task=most,
        )
        if not before:
            assert (lease, further) == (None, ())
            return
        assert lease is not None
        was = self.waiting.pop(lease.token)
        assert (lease.batch, lease.first, lease.crashes) == (was.batch, was.first, was.crashes)
        assert lease.batch == int(least[0])
        if message[1] in before and message[0] == before[message[1]].batch == lease.batch:
            assert lease.token == message[1]
        assert 1 <= lease.count <= (most or was.count)
        assert not (further and len(before) > 1 and not most), "jobs were cut off though a range waited for the idle"
        self.leased[lease.token] = Span(lease.batch, lease.first, lease.count, lease.crashes)
        self._offered(further)
        self.held.append(lease)

    @precondition(lambda self: self.held)
    @rule(
        choice=CHOICE,
        values=st.lists(VALUES, min_size=1, max_size=9),
        whole=st.booleans(),
        failed=st.sets(st.integers(0, 8), max_size=3),
        give_back=st.sampled_from([False, False, True]),
    )
    def commit(self, choice: int, values: list[float], whole: bool, failed: set[int], give_back: bool) -> None:
        """The next jobs of what a slot holds, or believes to hold."""
        # Mostly one that it does hold.
        real = [lease for lease in self.held if lease.token in self.leased and choice % 4] or self.held
        lease = real[choice % len(real)]
        done = lease.count if whole else min(lease.count, len(values))
        given = list(itertools.islice(itertools.cycle(values), done))
        work = slice_of(lease.first, given, failed=[lease.first + i for i in failed if i < done])
        self._send(lease, work, give_back=give_back)

    @precondition(lambda self: self.leased or self.waiting)
    @rule(choice=CHOICE, value=VALUES, done=st.integers(1, 9), shared=st.booleans(), repeats=st.integers(0, 2))
    def slice(self, choice: int, value: float, done: int, shared: bool, repeats: int) -> None:
        """What a slot does all day: a few jobs of its range, whose end may be shared, and a commit sent until heard."""
        if not self.leased:
            self.claim(choice, "waiting", 0)
        real = [lease for lease in self.held if lease.token in self.leased]
        lease = real[choice % len(real)]
        if shared:
            # The end of the range may go while the slot is at work on it; it hears so at its commit.
            self.share()
            done = lease.count
        given = [value + i for i in range(min(done, lease.count))]
        for again in range(repeats + 1):
            self._send(lease, slice_of(lease.first, given), give_back=False, again=again > 0)

    @precondition(lambda self: self.sent)
    @rule(choice=CHOICE, last=st.booleans())
    def replay(self, choice: int, last: bool) -> None:
        """A commit that was sent before, once more: its answer was lost, or its sender slept."""
        lease, work, give_back = self.sent[-1 if last else choice % len(self.sent)]
        self._send(lease, work, give_back=give_back, again=True)

    @precondition(lambda self: self.held)
    @rule(choice=CHOICE)
    def give_back_untouched(self, choice: int) -> None:
        """A slot that cannot write hands its range back without a result."""
        lease = self.held[choice % len(self.held)]
        self._send(lease, Slice(lease.first, 0, 0.0, {}, {}, {}, b"", 1), give_back=True)

    @precondition(lambda self: self.held)
    @rule(choices=st.lists(CHOICE, max_size=3))
    def renew(self, choices: list[int]) -> None:
        """Exactly those that were lost are named, and the others are safe from the next reclaim."""
        tokens = [self.held[choice % len(self.held)].token for choice in choices]
        lost = ranges.renew(self.connection, tokens, lease_seconds=60)
        assert lost == [token for token in tokens if token not in self.leased]
        self.expired -= set(tokens)

    @precondition(lambda self: self.leased)
    @rule(choice=CHOICE)
    def expire(self, choice: int) -> None:
        """A lease runs out; its holder may still come first."""
        token = self._pick(self.leased, choice)
        self.connection.command("ZADD", keys.LEASES, "XX", 0, token)
        self.expired.add(token)

    @precondition(lambda self: self.leased)
    @rule(choice=CHOICE, dies=st.booleans())
    def poison(self, choice: int, dies: bool) -> None:
        """The job at the head of a range has killed its process so often that once more is too often."""
        token = self._pick(self.leased, choice)
        self.connection.command("HSET", f"{keys.PREFIX}range:{token}", "crashes", MAX_CRASHES - 1)
        self.leased[token] = replace(self.leased[token], crashes=MAX_CRASHES - 1)
        if dies:
            self._reclaimed([token], ranges.reclaim(self.connection, [token]), crashed=True)

    @rule()
    def reclaim_expired(self) -> None:
        """All leases that ran out, and no other, are offered again."""
        self._reclaimed(sorted(self.expired), ranges.reclaim(self.connection), crashed=True)

    @precondition(lambda self: self.held)
    @rule(choice=CHOICE, crashed=st.booleans())
    def reclaim_one(self, choice: int, crashed: bool) -> None:
        """A slot died, or was stopped in good order; its range may be gone already."""
        real = [lease for lease in self.held if lease.token in self.leased and choice % 4] or self.held
        token = real[choice % len(real)].token
        self._reclaimed([token], ranges.reclaim(self.connection, [token], crashed=crashed), crashed=crashed)

    @rule()
    def share(self) -> None:
        """Parts of the longest range go to idle slots: never while something waits, never the job that runs."""
        tickets = ranges.share(self.connection, slice_seconds=-1)
        longest = max((span.count for span in self.leased.values()), default=0)
        assert bool(tickets) == (not self.waiting and len(self.leased) < SLOTS and longest > 1)
        if not tickets:
            return
        assert len(tickets) <= SLOTS - len(self.leased)
        start = min(ticket.first for ticket in tickets)
        (token,) = [
            token
            for token, span in self.leased.items()
            if span.batch == tickets[0].batch and span.first < start < span.first + span.count
        ]
        span = self.leased[token]
        assert span.count == longest
        self.leased[token] = replace(span, count=start - span.first)
        self._offered(tuple(ticket.token for ticket in tickets))

    @precondition(lambda self: any(model.open for model in self.batches.values()))
    @rule(choice=CHOICE)
    def cancel(self, choice: int) -> None:
        """A person ends a batch: what has ended stays, the rest is cancelled, its holders' commits are refused."""
        # Seldom, so that most runs get further than that.
        batch = choice % (2 * len(self.batches)) + 1
        if batch not in self.batches:
            return
        model = self.batches[batch]
        assert batches.cancel(self.connection, batch) == len(model.open)
        # Only a batch that was still running can be cancelled.
        model.cancelled = bool(model.open) or model.cancelled
        self.waiting = {token: span for token, span in self.waiting.items() if span.batch != batch}
        self.leased = {token: span for token, span in self.leased.items() if span.batch != batch}
        self.expired &= self.leased.keys()

    # ---- what must be true after each of them -------------------------------------------------------------------

    @invariant()
    def counters_are_the_models(self) -> None:
        """Every job is in exactly one counter, and in the right one."""
        for batch, model in self.batches.items():
            wanted = dict.fromkeys(JobState, 0)
            for state, _ in model.ended.values():
                wanted[state] += 1
            wanted[JobState.RUNNING] = sum(span.batch == batch for span in self.leased.values())
            wanted[JobState.PENDING] = len(model.open) - wanted[JobState.RUNNING]
            wanted[JobState.CANCELLED] = model.jobs - len(model.ended) if model.cancelled else 0
            view = batches.view(self.connection, batch)
            assert view.counters == wanted
            assert sum(view.counters.values()) == model.jobs
            assert view.crashes == model.crashes
            assert bool(view.ended) == (not model.open)

    @invariant()
    def table_statistics_and_failures_are_the_models(self) -> None:
        """Each record, the running statistics and the kept errors say what was committed, and nothing else."""
        for batch, model in self.batches.items():
            table = read(self.connection, batch, 1, model.jobs, record_dtype(OUTPUTS))
            indices = range(1, model.jobs + 1)
            assert table["state"].tolist() == [model.ended.get(i, (JobState.PENDING, 0.0))[0] for i in indices]
            assert table["out:sum"].tolist() == [model.ended.get(i, (JobState.PENDING, 0.0))[1] for i in indices]
            assert batches.failures(self.connection, batch).keys() == model.failures
            values = np.array([value for state, value in model.ended.values() if state is JobState.COMPLETED])
            found = batches.statistics(self.connection, batch, OUTPUTS)
            assert set(found) == (set(OUTPUTS) if len(values) else set())
            for name, wanted in (("sum", values), ("mean", values / 10)) if len(values) else ():
                pairs = zip(found[name], moments(wanted), strict=True)
                assert all(math.isclose(one, two, rel_tol=1e-9, abs_tol=1e-9) for one, two in pairs), found

    @invariant()
    def open_ranges_partition_the_open_jobs(self) -> None:
        """Each job without a result is in one range, which waits or is leased; there is no other trace of a range."""
        everything = {**self.waiting, **self.leased}
        for batch, model in self.batches.items():
            found = ranges.open_ranges(self.connection, batch)
            assert sorted(index for t in found for index in range(t.first, t.first + t.count)) == model.open
            assert {t.token: (t.first, t.count) for t in found} == {
                token: (span.first, span.count) for token, span in everything.items() if span.batch == batch
            }
        kept = {key.decode() for key in self.connection.command("KEYS", keys.leased_range("*"))}
        assert kept == {keys.leased_range(token) for token in everything}

    @invariant()
    def sets_of_batches_are_right(self) -> None:
        """A batch waits for slots if it has waiting ranges, is active until its end, and is finished after that."""
        assert self._members("ZRANGE", keys.WAITING, 0, -1) == {span.batch for span in self.waiting.values()}
        still = {batch for batch, model in self.batches.items() if model.open}
        assert self._members("SMEMBERS", keys.ACTIVE) == still
        assert self._members("SMEMBERS", keys.FINISHING) == self.batches.keys() - still
        leases = self.connection.command("ZRANGE", keys.LEASES, 0, -1)
        assert {token.decode() for token in leases} == self.leased.keys()

    @invariant()
    def the_audit_finds_nothing(self) -> None:
        """What users run to find damage finds none in any state that can be reached."""
        for batch in self.batches:
            assert audit(self.connection, NOWHERE, batch, files=False) == []

    def teardown(self) -> None:
        """From any state, slots that go on working end every batch."""
        tokens = sorted(self.leased)
        self._reclaimed(tokens, ranges.reclaim(self.connection, tokens, crashed=False), crashed=False)
        for _ in range(1000):
            self.claim(0, "lost", 0)
            if not self.leased:
                break
            self.commit(len(self.held) - 1, [1.0], True, set(), False)
        assert not any(model.open for model in self.batches.values())
        for check in (
            self.counters_are_the_models,
            self.table_statistics_and_failures_are_the_models,
            self.open_ranges_partition_the_open_jobs,
            self.sets_of_batches_are_right,
            self.the_audit_finds_nothing,
        ):
            check()

    # ---- the model's own steps ----------------------------------------------------------------------------------

    def _send(self, lease: Lease, work: Slice, *, give_back: bool, again: bool = False) -> None:
        verdict = ranges.commit(self.connection, lease, work, lease_seconds=60, slice_seconds=1, give_back=give_back)
        if not again:
            self.sent.append((lease, work, give_back))
        span = self.leased.get(lease.token)
        if span is None:
            assert verdict == Verdict("stale")
            self._held_now(lease, None)
        elif span.first != work.first:
            assert verdict == Verdict("continue", False, span.first, span.count)
            self._held_now(lease, replace(lease, first=span.first, count=span.count))
        elif work.done > span.count:
            assert verdict == Verdict("shrunk", False, span.first, span.count)
            self._held_now(lease, replace(lease, first=span.first, count=span.count))
        else:
            self._committed(lease, span, work, verdict, give_back)

    def _committed(self, lease: Lease, span: Span, work: Slice, verdict: Verdict, give_back: bool) -> None:
        model = self.batches[span.batch]
        for index, state, value in _results(work):
            model.end(index, state, value)
        left = span.count - work.done
        if left == 0:
            assert verdict == Verdict("done", not model.open)
            self._gone(lease)
        elif verdict.word == "released":
            assert give_back or {other.batch for other in self.waiting.values()} - {span.batch}
            self._gone(lease)
            self._offered(verdict.tickets)
            if not work.done:
                self.waiting[verdict.tickets[0]] = replace(self.waiting[verdict.tickets[0]], crashes=span.crashes)
        else:
            assert (verdict.word, give_back, verdict.first) == ("continue", False, span.first + work.done)
            assert not (verdict.tickets and self.waiting), "jobs were cut off though a range waited for the idle"
            self.leased[lease.token] = Span(span.batch, verdict.first, verdict.count)
            self.expired.discard(lease.token)
            self._offered(verdict.tickets)
            self._held_now(lease, replace(lease, first=verdict.first, count=verdict.count))

    def _reclaimed(self, tokens: list[str], tickets: list[ranges.Ticket], *, crashed: bool) -> None:
        wanted = []
        for token in tokens:
            span = self.leased.pop(token, None)
            if span is None:
                continue
            self.expired.discard(token)
            model = self.batches[span.batch]
            span = replace(span, crashes=span.crashes + crashed)
            model.crashes += crashed
            if span.crashes >= MAX_CRASHES:
                model.end(span.first, JobState.FAILED, 0.0)
                span = Span(span.batch, span.first + 1, span.count - 1)
            wanted += [span] if span.count else []
        assert sorted((t.batch, t.first, t.count) for t in tickets) == sorted(
            (s.batch, s.first, s.count) for s in wanted
        )
        for ticket in tickets:
            (span,) = [s for s in wanted if (s.batch, s.first) == (ticket.batch, ticket.first)]
            assert ticket.token not in {token for _, token in self.messages}, "a token was given out twice"
            self.waiting[ticket.token] = span
            self.messages.append((ticket.batch, ticket.token))

    def _offered(self, tokens: tuple[str, ...]) -> None:
        for token in tokens:
            assert token not in {known for _, known in self.messages}, "a token was given out twice"
            ticket = ranges.lookup(self.connection, token)
            assert ticket is not None
            self.waiting[token] = Span(ticket.batch, ticket.first, ticket.count)
            self.messages.append((ticket.batch, token))

    def _gone(self, lease: Lease) -> None:
        del self.leased[lease.token]
        self.expired.discard(lease.token)
        # Its holder may have died before it heard that: it stays in `held`, to be committed, renewed, reclaimed again.

    def _held_now(self, lease: Lease, after: Lease | None) -> None:
        self.held = [held for held in self.held if held.token != lease.token]
        if after is not None:
            self.held.append(after)

    def _message(self, choice: int, kind: str) -> tuple[int, str]:
        if kind == "waiting" and self.waiting:
            token = self._pick(self.waiting, choice)
            return self.waiting[token].batch, token
        if kind == "any" and self.messages:
            return self.messages[choice % len(self.messages)]
        if kind == "foreign" and self.messages:
            batch, token = self.messages[choice % len(self.messages)]
            return batch % 2 + 1, token
        return 0, "owed-0"

    @staticmethod
    def _pick(spans: dict[str, Span], choice: int) -> str:
        return sorted(spans)[choice % len(spans)]

    def _members(self, *command: object) -> set[int]:
        return {int(batch) for batch in self.connection.command(*command)}


def _results(work: Slice) -> Iterator[tuple[int, JobState, float]]:
    if not work.done:
        return
    for index, record in enumerate(np.frombuffer(work.records, dtype=record_dtype(OUTPUTS)), work.first):
        yield index, JobState(int(record["state"])), float(record["out:sum"])


def test_whatever_happens_the_ledger_agrees_with_a_model(connection: Connection) -> None:
    """Claims, commits, replays, deaths, shares and cancels in any order leave one result a job, and all ends."""
    run_state_machine_as_test(
        lambda: LedgerMachine(connection),  # type: ignore[arg-type]
        settings=settings(
            max_examples=60,
            stateful_step_count=30,
            deadline=None,
            # Shrinking a failure takes minutes here; the steps up to it are printed as they were.
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
        ),
    )
