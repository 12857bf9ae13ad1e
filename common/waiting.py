"""Why jobs wait: held, dependencies, throttle, retries, priority, slots; from the ledger alone."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal

from common.batch import FAILED_STATES, BatchSpec, JobState
from common.ledger import Connection, batches, keys, rebuilds, workers
from common.ledger.batches import BatchView
from common.ledger.ranges import DEFAULT_PARTITION
from common.ledger.workers import WorkerInfo
from common.wording import jobs_text, state_text

MOST_PRIORITY = 100
MOST_NAMED = 5

Standing = Literal["met", "open", "never"]


@dataclass
class Explanation:
    """What there is to say: the state, Slurm's word for the reason, sentences, and the next step."""

    id: str
    state: str
    reason: str = ""
    details: list[str] = field(default_factory=list)
    advice: str = "nothing"

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def explain_waiting(connection: Connection, view: BatchView, found: Explanation, token: str = "") -> None:
    """Why pending jobs are not running: those of the range ``token``, or the batch's in general."""
    spec, running = view.spec, view.counters[JobState.RUNNING]
    waiting = int(connection.command("ZCARD", keys.ranges(spec.id)))
    if view.held:
        found.reason, found.advice = "JobHeldUser", f"`batchsim release {spec.id}`"
        found.details.append(
            f"It is held: none of its jobs is started until it is released; {jobs_text(running)} still at work."
        )
    elif view.unmet:
        # Only an element that was not released yet waits for its counterpart, too.
        blocked = bool(token) and _is_in(connection, keys.blocked(spec.id), token, waiting)
        alone = [pair for pair in spec.dependency if blocked or pair[0] != "aftercorr"]
        _explain_dependency(connection, view, found, alone)
    elif _is_in(connection, keys.blocked(spec.id), token, waiting):
        _explain_dependency(connection, view, found, [pair for pair in spec.dependency if pair[0] == "aftercorr"])
    elif _is_in(connection, keys.parked(spec.id), token, waiting):
        first = [token] if token else connection.command("ZRANGE", keys.parked(spec.id), 0, 0)
        parked = float((first and connection.command("ZSCORE", keys.parked(spec.id), first[0])) or 0)
        found.reason, found.advice = "BeginTime", f"wait: jobs that failed are tried again up to {spec.retries} times"
        found.details.append(f"It failed, and is tried again from {time_text(parked)} on." if token else
                             f"Its failed jobs are tried again from {time_text(parked)} on.")  # fmt: skip
    elif view.throttle and running >= view.throttle:
        found.reason = "JobArrayTaskLimit"
        found.advice = f"wait, or `batchsim update {spec.id} --throttle {view.throttle * 2}`; 0 is no limit"
        found.details.append(f"{jobs_text(running)} of it at work, and its throttle is {view.throttle}.")
    elif not waiting:
        found.details.append("All of its jobs are in the hands of slots, which take one after the other.")
    else:
        _explain_resources(connection, view, found)


def _is_in(connection: Connection, place: str, token: str, waiting: int) -> bool:
    """Whether the range is in this place; without one, whether some are, and none waits for a slot."""
    if token:
        return connection.command("ZSCORE", place, token) is not None
    return not waiting and bool(connection.command("ZCARD", place))


def _explain_resources(connection: Connection, view: BatchView, found: Explanation) -> None:
    """It waits for a slot: there is none, or all are at work for others."""
    spec = view.spec
    there = [info for info in workers.alive(connection) if spec.partition in info.partitions]
    serving = [info for info in there if info.has(spec)]
    lacking = [info for info in there if info not in serving]
    slots, idle = sum(info.slots for info in serving), sum(max(0, info.slots - info.busy) for info in serving)
    waiting = _in_line(connection, spec.partition, serving)
    found.reason = "Resources"
    found.advice = "wait, or start more workers: " + _start(
        "up --detach --no-recreate --scale worker=N", f"--workers {2 * max(1, slots)}"
    )
    if lacking:
        found.details.append(_lack(lacking, spec))
    if lacking and not slots:
        found.advice = (
            f"put its file, as it was when this batch was submitted, where these workers look for simulations; or "
            f"give the batch up: `batchsim cancel {spec.id}`"
        )
    elif not slots:
        found.details.append(f"No worker serves partition {spec.partition!r}.")
        if spec.partition == DEFAULT_PARTITION:
            found.advice = "start one: " + _start("up --detach worker", "")
        else:
            found.advice = "start one: " + _start(
                f"run --detach --env WORKER_PARTITIONS={spec.partition} worker",
                f"--worker-partitions {DEFAULT_PARTITION},{spec.partition}",
            )
    elif idle:
        found.details.append(
            f"Slots of partition {spec.partition!r}: {slots}, {idle} of them idle; it starts in seconds."
        )
        found.advice = "wait"
    else:
        found.details.append(f"Slots of partition {spec.partition!r}: {slots}, all of them at work.")
    first = batches.view(connection, waiting[0]) if waiting and waiting[0] != spec.id else None
    if slots and first and first.priority > view.priority:
        found.reason = "Priority"
        found.details.append(
            f"Batch {first.spec.id} goes first: its priority is {first.priority}, that of this one {view.priority}."
        )
        higher = min(MOST_PRIORITY, first.priority + 1)
        found.advice = f"wait, or `batchsim update {spec.id} --priority {higher}`"
    elif slots and len(waiting) > 1:
        found.details.append(f"{len(waiting)} batches wait there; those of one priority share the slots by time.")


def _start(compose: str, options: str) -> str:
    """How workers are started; the ledger does not say which form of the system it belongs to."""
    serve = f"batchsim serve {options}".rstrip()
    return f"in compose `docker compose {compose}`; without containers end `batchsim serve`, then `{serve}` goes on"


def _in_line(connection: Connection, partition: str, able: Sequence[WorkerInfo]) -> list[int]:
    """The batches that wait there, in the order of their turns, without those that these workers pass over."""
    names = connection.command("ZRANGE", keys.waiting(partition), 0, -1)
    wants = connection.many([("HGET", keys.batch(int(name)), "requires") for name in names]) if names else []
    has = {name.encode() for info in able for name in info.simulations}
    return [int(name) for name, needs in zip(names, wants, strict=True) if not needs or needs in has]


def _lack(lacking: Sequence[WorkerInfo], spec: BatchSpec) -> str:
    """Which workers cannot run it, and why."""
    other = {info.name for info in lacking if any(has.split(":")[0] == spec.simulation for has in info.simulations)}
    named = ", ".join(
        f"{info.name} (another version)" if info.name in other else info.name for info in lacking[:MOST_NAMED]
    )
    more = f" and {len(lacking) - MOST_NAMED} more" if len(lacking) > MOST_NAMED else ""
    return f"It needs simulation {spec.simulation}, version {spec.version}, which these workers lack: {named}{more}."


def _explain_dependency(
    connection: Connection, view: BatchView, found: Explanation, pairs: Sequence[tuple[str, int]]
) -> None:
    """What it waits for, and whether that can still come; ``pairs`` are the dependencies that hold it up."""
    standings = dependencies(connection, view.spec, view.spec.dependency)
    found.details += [text for text, _ in standings]
    held = [(pair, how) for pair, (_, how) in zip(view.spec.dependency, standings, strict=True) if pair in pairs]
    never = any(how == "never" for _, how in held)
    found.reason = "DependencyNeverSatisfied" if never else "Dependency"
    wanted = "never" if never else "open"
    kind, on = next((pair for pair, how in held if how == wanted), pairs[0])
    if not batches.exists(connection, on):
        found.advice = f"batch {on} cannot be run again under its number; {_give_up(view.spec)}"
    elif not never:
        found.advice = f"wait; how far batch {on} is: `batchsim explain {on}`"
    else:
        found.advice = _advise_never(batches.view(connection, on), kind, view.spec)


def _advise_never(other: BatchView, kind: str, spec: BatchSpec) -> str:
    """What to do about a batch that ended in another way than was waited for."""
    if kind == "afternotok":
        return f"it runs only if batch {other.spec.id} fails: `batchsim cancel {spec.id}`"
    if other.succeeded:
        return f"what batch {other.spec.id}'s stop rule made needless is not run; {_give_up(spec)}"
    states = [state for state, count in other.counters.items() if count and state > JobState.COMPLETED]
    # Without a state `requeue` runs again what failed.
    chosen = "" if set(states) <= set(FAILED_STATES) else "".join(f" --state {state.name}" for state in states)
    again = f"`batchsim requeue {other.spec.id}{chosen}`"
    return f"run batch {other.spec.id} again: {again}; or {_give_up(spec)}"


def _give_up(spec: BatchSpec) -> str:
    return f"give this one up: `batchsim cancel {spec.id}`"


def dependencies(
    connection: Connection, spec: BatchSpec, pairs: Sequence[tuple[str, int]]
) -> list[tuple[str, Standing]]:
    """A sentence on each of a batch's dependencies, and how it stands."""
    forgotten = batches.outcomes(connection, spec.id)
    return [
        _standing(connection, spec.id, kind, on)
        if batches.exists(connection, on)
        else _standing_by_files(connection, spec.id, kind, on, forgotten.get(on, ""))
        for kind, on in pairs
    ]


def _standing(connection: Connection, batch_id: int, kind: str, on: int) -> tuple[str, Standing]:
    other = batches.view(connection, on)
    # A job that a stop rule made needless has no result for its counterpart.
    good = other.counters[JobState.COMPLETED] == other.spec.jobs if kind == "aftercorr" else other.succeeded
    ended = bool(other.ended) and not (kind == "aftercorr" and _unprimed(connection, batch_id, on))
    how = _judge(kind, good) if ended else "open"
    stands = state_text(other.state, succeeded=ended and other.succeeded)
    succeeded = "all of them completed" if stands == other.state else "it has succeeded"
    why = succeeded if kind == "afternotok" else "not all of them completed"
    said = f"batch {on} is {stands}, {other.done:,} of its {jobs_text(other.spec.jobs)} ended"
    return f"{kind}:{on}: {said}{_tail(how, f', since {why}')}", how


def _standing_by_files(connection: Connection, batch_id: int, kind: str, on: int, outcome: str) -> tuple[str, Standing]:
    """Of a batch that the ledger has forgotten: as its files say, which were looked at when this one was rebuilt."""
    if not outcome and rebuilds.awaits(connection, on):
        why = "a worker's log says why (batch.not_rebuilt)"
        return f"{kind}:{on}: batch {on} could not be rebuilt from its files yet; {why}.", "open"
    if not outcome:
        return f"{kind}:{on}: batch {on} is not in the ledger any more, and how it ended is not known.", "open"
    how, word = _judge(kind, outcome == "ok"), "succeeded" if outcome == "ok" else "did not succeed"
    if kind == "aftercorr" and _unprimed(connection, batch_id, on):
        how = "open"
    elif kind == "aftercorr" and connection.command("ZCARD", keys.blocked(batch_id)):
        how = "never"
    said = f"batch {on} is not in the ledger any more; by its files it {word}"
    return f"{kind}:{on}: {said}{_tail(how)}", how


def _unprimed(connection: Connection, batch_id: int, on: int) -> bool:
    """Whether the housekeeper has yet to look at what had completed before a batch with aftercorr came."""
    return bool(connection.command("SISMEMBER", keys.UNPRIMED, f"{batch_id}:{on}"))


def _judge(kind: str, good: bool) -> Standing:
    return "met" if kind == "afterany" or good != (kind == "afternotok") else "never"


def _tail(how: Standing, why: str = "") -> str:
    return {"met": ": met.", "open": ".", "never": f": this cannot be met{why}."}[how]


def time_text(seconds: float) -> str:
    """A time as people read it: ISO 8601, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")
