"""Why a batch or a job waits, failed or ran twice, and what to do: from the ledger alone."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from common.batch import FAILED_STATES, JobState, Reason
from common.errors import InvalidInput
from common.ledger import Connection, batches, control, keys, ranges, table
from common.ledger.batches import BatchView
from common.ledger.ranges import MAX_FAILURES_KEPT
from common.ledger.table import record_dtype
from common.suspicion import warnings
from common.waiting import Explanation, dependencies, explain_waiting, time_text
from common.wording import jobs_text

CHUNK_JOBS = 2**16
MOST_EXAMPLES = 5

_AGAIN = "once its cause is mended: `batchsim requeue {id}`"
# What to do about jobs that ended so, by Slurm's word for the reason, or by the state when there is none.
ADVICE = {
    "NonZeroExitCode": f"see the error; {_AGAIN}",
    "RaisedSignal": f"see the error; {_AGAIN}",
    "NoResult": f"see what it printed; {_AGAIN}",
    "TimeLimit": "submit it with a higher limit, and its other options as they were: "
    "`batchsim submit --jobs {jobs} --seed {seed} --time-limit-seconds {seconds:g}`",
    "OutOfMemory": "submit it with a higher limit, and its other options as they were: "
    "`batchsim submit --jobs {jobs} --seed {seed} --memory-limit-mb {megabytes}`",
    "CrashLimit": "the job ends its own process: look for it there; once that is mended: `batchsim requeue {id}`",
    "MaxFails": "see why the others failed: `batchsim explain {id}`; once that is mended: "
    "`batchsim requeue {id}{states}`; to run the rest all the same: `batchsim update {id} --max-fails {fails}`, then "
    "`batchsim requeue {id} --state ABORTED`",
    "DependencyNeverSatisfied": "once they can be met: `batchsim requeue {id} --state CANCELLED`",
    "StopRule": "nothing: the batch's stop rule was met, and these jobs were not needed",
    "COMPLETED": "nothing",
    "FAILED": f"see the error; {_AGAIN}",
    "TIMEOUT": f"see how long it ran; {_AGAIN}",
    "OUT_OF_MEMORY": f"see how much memory it took; {_AGAIN}",
    "NODE_FAIL": "it was lost with its worker: `batchsim requeue {id}`",
    "CANCELLED": "nothing; or, to run it after all: `batchsim requeue {id} --state CANCELLED`",
    "ABORTED": "it was given up; to run it after all: `batchsim requeue {id} --state ABORTED`",
}


def explain_batch(connection: Connection, batch_id: int) -> Explanation:
    """Why the batch waits, runs, or ended as it did. Raises :class:`common.errors.NotFound`."""
    view = batches.view(connection, batch_id)
    found = Explanation(str(batch_id), view.state)
    if view.ended:
        _explain_end(connection, view, found)
    else:
        found.advice = _watch(batch_id)
        if view.counters[JobState.PENDING]:
            explain_waiting(connection, view, found)
        found.details += _holders(connection, batch_id)
    if view.crashes:
        times = "once" if view.crashes == 1 else f"{view.crashes} times"
        found.details.append(f"Processes or workers were lost {times} while they ran it.")
    found.details += [f"Warning: {text}" for text in warnings(connection, view)]
    return found


def explain_job(connection: Connection, batch_id: int, index: int) -> Explanation:
    """Why one job waits, failed, or ran more than once. Raises ``NotFound`` and :class:`InvalidInput`."""
    view = batches.view(connection, batch_id)
    if not 1 <= index <= view.spec.jobs:
        raise InvalidInput(f"job is {index}; batch {batch_id} has jobs from 1 to {view.spec.jobs}", field="job")
    record = table.page(connection, batch_id, index, 1, record_dtype(view.spec.outputs))[0]
    state = JobState(int(record["state"]))
    found = Explanation(f"{batch_id}_{index}", state.name)
    if state.terminal:
        found.reason = Reason(int(record["reason"])).name if record["reason"] else ""
        found.details += _ending(view, record, index, batches.failures(connection, batch_id))
        _advise_ended(connection, view, found, [found.reason or found.state])
    else:
        _explain_open(connection, view, index, found)
    found.details += _history(connection, batch_id, index, state)
    return found


def _explain_end(connection: Connection, view: BatchView, found: Explanation) -> None:
    counts: dict[tuple[int, int], int] = {}
    examples: dict[tuple[int, int], list[int]] = {}
    dtype = record_dtype(view.spec.outputs)
    for first in range(1, view.spec.jobs + 1, CHUNK_JOBS):
        count = min(CHUNK_JOBS, view.spec.jobs - first + 1)
        records = table.page(connection, view.spec.id, first, count, dtype)
        key = records["state"].astype(np.int64) * 256 + records["reason"]
        for value in np.unique(key):
            which = np.flatnonzero(key == value)
            pair = (int(value) // 256, int(value) % 256)
            counts[pair] = counts.get(pair, 0) + len(which)
            examples.setdefault(pair, []).extend(int(i) + first for i in which[:MOST_EXAMPLES])
    whys = []
    for (state, reason), count in sorted(counts.items(), key=lambda item: -item[1]):
        name, why = JobState(state).name, Reason(reason).name if reason else ""
        shown = ", ".join(f"{view.spec.id}_{index}" for index in examples[state, reason][:MOST_EXAMPLES])
        more = " …" if count > MOST_EXAMPLES else ""
        found.details.append(f"{jobs_text(count)} {name}{f' ({why})' if why else ''}: {shown}{more}")
        if state != JobState.COMPLETED:
            whys.append(why or name)
        if not found.reason and why:
            found.reason = why
    for index, text in sorted(batches.failures(connection, view.spec.id).items())[:1]:
        *before, last = text.strip().splitlines() or [""]
        rest = f"; all of it: `batchsim explain {view.spec.id}_{index}`" if before else ""
        found.details.append(f"First error, of job {view.spec.id}_{index}: {last}{rest}")
    _advise_ended(connection, view, found, whys or [JobState.COMPLETED.name])


def _advise_ended(connection: Connection, view: BatchView, found: Explanation, whys: Sequence[str]) -> None:
    """What to do about jobs that ended like this: one line for each of ``whys``, those of one advice together."""
    spec = view.spec
    if Reason.DependencyNeverSatisfied.name in whys:
        found.details += [text for text, _ in dependencies(connection, spec, spec.dependency)]
    states = [state.name for state in (JobState.ABORTED, *FAILED_STATES) if view.counters[state]]
    facts = {
        "id": spec.id,
        "jobs": spec.jobs,
        "seed": spec.seed,
        "seconds": spec.time_limit_seconds * 2,
        "megabytes": spec.memory_limit_mb * 2,
        "fails": min(spec.jobs, 2 * sum(view.counters[state] for state in FAILED_STATES)),
        "states": "".join(f" --state {state}" for state in states),
    }
    named: dict[str, list[str]] = {}
    for why in dict.fromkeys(whys):
        named.setdefault(ADVICE[why].format(**facts), []).append(why)
    lines = [f"{', '.join(names)}: {advice}" for advice, names in named.items()]
    found.advice = "\n".join(lines) if len(lines) > 1 else next(iter(named))


def _watch(batch_id: int) -> str:
    return f"wait: `batchsim watch {batch_id}`"


def _holders(connection: Connection, batch_id: int) -> Iterator[str]:
    rows = []
    for token in connection.command("ZRANGE", keys.LEASES, 0, -1):
        batch, slot, first, count = connection.command(
            "HMGET", keys.leased_range(token.decode()), "batch", "slot", "first", "count"
        )
        if batch is not None and int(batch) == batch_id and slot is not None:
            rows.append(f"Slot {slot.decode()} works on jobs {int(first)}-{int(first) + int(count) - 1}.")
    yield from rows[:MOST_EXAMPLES]
    if len(rows) > MOST_EXAMPLES:
        yield f"So do {len(rows) - MOST_EXAMPLES} other slots on others."


def _ending(view: BatchView, record: np.void, index: int, errors: Mapping[int, str]) -> Iterator[str]:
    spec = view.spec
    if record["started"]:
        yield (
            f"Attempt {int(record['attempt'])} began at {time_text(float(record['started']))} "
            f"and took {float(record['elapsed']):.3g} s."
        )
    if record["signal"]:
        yield f"Its process was ended by signal {int(record['signal'])}."
    if record["reason"] == Reason.TimeLimit:
        yield f"The time limit is {spec.time_limit_seconds:g} s."
    if record["reason"] == Reason.OutOfMemory:
        yield f"The memory limit is {spec.memory_limit_mb} MB."
    if record["reason"] == Reason.MaxFails:
        yield "More jobs failed than max_fails allowed, so the rest of the batch was given up before this one ended."
        yield f"max_fails is {view.max_fails} now."
    if error := errors.get(index, ""):
        yield f"Error: {error.strip()}"
    elif JobState(int(record["state"])) in FAILED_STATES:
        # A requeue may have made room since, so of few texts it is not known what happened to this one.
        full = len(errors) >= MAX_FAILURES_KEPT
        why = (
            f"only the first {MAX_FAILURES_KEPT:,} of a batch are"
            if full
            else "most likely it was lost with its process"
        )
        yield f"Its error text was not kept; {why}."


def _explain_open(connection: Connection, view: BatchView, index: int, found: Explanation) -> None:
    """A job without an end: which range it is in says why."""
    mine = next((r for r in ranges.open_ranges(connection, view.spec.id) if r.first <= index < r.first + r.count), None)
    slot, since, at = (None, None, None) if mine is None else connection.command(
        "HMGET", keys.leased_range(mine.token), "slot", "since", "at"
    )  # fmt: skip
    if mine is None or not slot or connection.command("ZSCORE", keys.LEASES, mine.token) is None:
        explain_waiting(connection, view, found, mine.token if mine is not None else "")
        return
    reported = f"it reports after each slice, last at {time_text(float(since or 0))}"
    now_at = max(mine.first, int(at or 0))
    if index == now_at:
        found.state = "RUNNING"
        found.details.append(f"Slot {slot.decode()} is at it, or soon after it: {reported}.")
        found.advice = f"wait, or stop it: `batchsim cancel {found.id}`"
        return
    where = f"{jobs_text(index - now_at)} further on" if index > now_at else "and has done it, as it seems"
    found.details.append(f"Slot {slot.decode()} has it in hand, {where}: {reported}.")
    found.advice = _watch(view.spec.id)


def _history(connection: Connection, batch_id: int, index: int, state: JobState) -> list[str]:
    """What happened to the job; the end of an interval that it was in, but had ended before, did not happen to it."""
    found: list[str] = []
    open_again = not state.terminal or state is JobState.COMPLETED
    for event in reversed(control.events(connection, batch_id)):
        if not control.happened_to(event, index):
            continue
        word = event["kind"].split()[0]
        if word in ("CANCELLED", "ABORTED") and (open_again or word != state.name):
            continue
        who = f": {event['who']}" if event["who"] else ""
        if word == "requeued,":
            state = JobState[event["kind"].split()[-1]]
            open_again = False
            error = event["errors"].get(str(index), "")
            who = (f" ({event['reason']})" if event["reason"] else "") + (f": {error}" if error else "")
        kind = event["kind"].strip() + (" while it ran" if index in event.get("ran", ()) else "")
        if kind in ("worker lost", "slot failed") and index > event["first"]:
            # Which of its jobs it had done and not committed, nobody knows.
            kind += f" that was at job {event['first']:,} or later, and may not have come to this one"
        found.append(f"{time_text(event['at'])} {kind}{who}")
    if not found:
        dtype = record_dtype(batches.view(connection, batch_id).spec.outputs)
        if table.read(connection, batch_id, index, 1, dtype)[0]["attempt"] > 1:
            found.append("Earlier history was not kept.")
    return found[::-1]
