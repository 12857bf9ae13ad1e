"""A model of the ledger: what must be true of it, and how each answer of it changes that."""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from hypothesis.stateful import RuleBasedStateMachine, invariant

from common.audit import audit
from common.batch import JobState
from common.ledger import Connection, batches, keys, ranges
from common.ledger.ranges import MAX_CRASHES, Lease, Slice, Verdict
from common.ledger.table import read, record_dtype
from common.statistics import moments
from tests.support import OUTPUTS

NOWHERE = Path("/nonexistent")
# What ranges.reclaim takes when nothing else is said.
CAREFUL_SECONDS = 2.0


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
    # How often it was lost with its worker, and how long its jobs then run one by one, s.
    lost: int = 0
    careful: float = 0.0
    urgent: bool = False


class LedgerModel(RuleBasedStateMachine):
    """Batches, ranges and messages as they must be; compared with the ledger after each rule of a subclass."""

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
        assert self._members("ZRANGE", keys.waiting("default"), 0, -1) == {span.batch for span in self.waiting.values()}
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

    # ---- what the ledger's answers change -----------------------------------------------------------------------

    def _send(self, lease: Lease, work: Slice, *, give_back: bool, again: bool = False) -> None:
        verdict = ranges.commit(self.connection, lease, work, lease_seconds=60, slice_seconds=1, give_back=give_back)
        if not again:
            self.sent.append((lease, work, give_back))
        span = self.leased.get(lease.token)
        if span is None:
            assert verdict == Verdict("stale")
            self._held_now(lease, None)
        elif span.first != work.first:
            assert verdict == Verdict("continue", False, span.first, span.count, span.careful)
            self._held_now(lease, replace(lease, first=span.first, count=span.count))
        elif work.done > span.count:
            assert verdict == Verdict("shrunk", False, span.first, span.count, span.careful)
            self._held_now(lease, replace(lease, first=span.first, count=span.count))
        else:
            self._committed(lease, span, work, verdict, give_back)

    def _committed(self, lease: Lease, span: Span, work: Slice, verdict: Verdict, give_back: bool) -> None:
        model = self.batches[span.batch]
        for index, state, value in _results(work):
            model.end(index, state, value)
        left = span.count - work.done
        careful = 0.0
        if verdict.word in ("continue", "released"):
            token = verdict.tickets[0] if verdict.word == "released" else lease.token
            # How long the steps of this test take, nobody knows.
            careful = float(self.connection.command("HGET", keys.leased_range(token), "careful"))
            assert 0 <= careful <= max(0.0, span.careful - work.seconds)
        after = replace(
            span, crashes=0 if work.done else span.crashes, careful=careful, lost=span.lost if careful else 0
        )
        if left == 0:
            assert verdict == Verdict("done", not model.open)
            self._gone(lease)
        elif verdict.word == "released":
            others = {other.batch for other in self.waiting.values()} - {span.batch}
            urgent = any(other.urgent for other in self.waiting.values() if other.batch == span.batch)
            assert give_back or others or urgent
            self._gone(lease)
            self._offered(verdict.tickets, like=after)
            self.waiting[verdict.tickets[0]] = replace(self.waiting[verdict.tickets[0]], crashes=after.crashes)
        else:
            assert (verdict.word, give_back, verdict.first) == ("continue", False, span.first + work.done)
            assert verdict.careful == careful
            assert not (verdict.tickets and self.waiting), "jobs were cut off though a range waited for the idle"
            self.leased[lease.token] = replace(after, first=verdict.first, count=verdict.count)
            self.expired.discard(lease.token)
            self._offered(verdict.tickets, like=after)
            self._held_now(lease, replace(lease, first=verdict.first, count=verdict.count))

    def _reclaimed(self, tokens: list[str], tickets: list[ranges.Ticket], *, crashed: bool) -> None:
        wanted = []
        for token in tokens:
            span = self.leased.pop(token, None)
            if span is None:
                continue
            self.expired.discard(token)
            model = self.batches[span.batch]
            span = replace(span, urgent=True)
            if crashed:
                span = replace(span, crashes=span.crashes + 1, lost=span.lost + 1, careful=CAREFUL_SECONDS)
            model.crashes += crashed
            if crashed and span.crashes >= MAX_CRASHES:
                model.end(span.first, JobState.FAILED, 0.0)
                span = replace(span, first=span.first + 1, count=span.count - 1, crashes=0)
            wanted += [span] if span.count else []
        assert sorted((t.batch, t.first, t.count) for t in tickets) == sorted(
            (s.batch, s.first, s.count) for s in wanted
        )
        for ticket in tickets:
            (span,) = [s for s in wanted if (s.batch, s.first) == (ticket.batch, ticket.first)]
            assert ticket.token not in {token for _, token in self.messages}, "a token was given out twice"
            self.waiting[ticket.token] = span
            self.messages.append((ticket.batch, ticket.token))

    def _offered(self, tokens: tuple[str, ...], like: Span | None = None) -> None:
        for token in tokens:
            assert token not in {known for _, known in self.messages}, "a token was given out twice"
            ticket = ranges.lookup(self.connection, token)
            assert ticket is not None
            span = Span(ticket.batch, ticket.first, ticket.count)
            self.waiting[token] = span if like is None else replace(span, lost=like.lost, careful=like.careful)
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
