"""The ledger as a state machine: whatever slots, messages and deaths do in whatever order, a model agrees with it."""

import itertools
from dataclasses import replace

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from common.batch import BatchSpec
from common.ledger import Connection, batches, control, keys, ranges, workers
from common.ledger.ranges import MAX_CRASHES, Slice
from common.ledger.workers import WorkerInfo
from tests.integration.ledger_model import LedgerModel, Model, Span
from tests.integration.ledger_support import run_machine
from tests.support import slice_of

SLOTS = 4
# A claim's message and its lease's time do not matter to what is true; every choice of them is a number to draw.
CHOICE = st.integers(0, 10**6)
VALUES = st.integers(-1000, 1000).map(lambda half: half / 2)


class LedgerMachine(LedgerModel):
    """Two workers with two slots each, messages that are delivered twice or never, holders that die or wake up late."""

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
        assert [(ticket.first, ticket.count) for ticket in offered] == spans
        self._offered(tuple(ticket.token for ticket in offered))

    @precondition(lambda self: len(self.leased) < SLOTS)
    @rule(
        choice=CHOICE, kind=st.sampled_from(["any", "waiting", "lost", "foreign"]), most=st.sampled_from([0, 0, 1, 3])
    )
    def claim(self, choice: int, kind: str, most: int) -> None:
        """Any message, new or delivered before, or of nothing: a range of the least served batch."""
        message = self._message(choice, kind)
        before = dict(self.waiting)
        least = self.connection.command("ZRANGE", keys.waiting("default"), 0, 0)
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
        assert (lease.batch, lease.first, lease.lost) == (was.batch, was.first, was.lost)
        assert (lease.careful > 0) == (was.lost > 0)
        assert lease.batch == int(least[0])
        urgent = [token for token, span in before.items() if span.batch == lease.batch and span.urgent]
        if urgent:
            # The newest of them has the least score.
            assert lease.token == max(urgent, key=lambda token: int(token.rsplit("-", 1)[1]))
        elif message[1] in before and message[0] == before[message[1]].batch == lease.batch:
            assert lease.token == message[1]
        assert 1 <= lease.count <= (most or was.count)
        assert not (further and len(before) > 1 and not most), "jobs were cut off though a range waited for the idle"
        self.leased[lease.token] = Span(lease.batch, lease.first, lease.count, was.crashes, was.lost, was.careful)
        self._offered(further, like=was)
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
        tokens = list(dict.fromkeys(self.held[choice % len(self.held)].token for choice in choices))
        lost = ranges.renew(self.connection, dict.fromkeys(tokens, 0), lease_seconds=60)
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
        self._offered(tuple(ticket.token for ticket in tickets), like=span)

    @precondition(lambda self: any(model.open for model in self.batches.values()))
    @rule(choice=CHOICE)
    def cancel(self, choice: int) -> None:
        """A person ends a batch: what has ended stays, the rest is cancelled, its holders' commits are refused."""
        # Seldom, so that most runs get further than that.
        batch = choice % (2 * len(self.batches)) + 1
        if batch not in self.batches:
            return
        model = self.batches[batch]
        assert control.cancel(self.connection, batch)[0] == len(model.open)
        # Only a batch that was still running can be cancelled.
        model.cancelled = bool(model.open) or model.cancelled
        self.waiting = {token: span for token, span in self.waiting.items() if span.batch != batch}
        self.leased = {token: span for token, span in self.leased.items() if span.batch != batch}
        self.expired &= self.leased.keys()

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


def test_whatever_happens_the_ledger_agrees_with_a_model(connection: Connection) -> None:
    """Claims, commits, replays, deaths, shares and cancels in any order leave one result a job, and all ends."""
    run_machine(lambda: LedgerMachine(connection))  # type: ignore[arg-type]
