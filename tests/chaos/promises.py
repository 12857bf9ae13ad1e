"""What holds of every batch that has finished, whatever was done to it and to the system meanwhile."""

import csv
import json
import random
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from common import outputs, results
from common.audit import audit, verify
from common.batch import BatchSpec, JobState
from common.ledger import Connection, batches, table
from tests.chaos.expected import Told, counts, wrong_ends
from tests.chaos.expected import csv as csv_of

if TYPE_CHECKING:
    from tests.chaos.system import ChaosSystem

# Beside the bytes that our own code gives for all jobs, those that plain NumPy gives for so many.
SAMPLE = 300


def states_of(root: Path, spec: BatchSpec) -> list[JobState]:
    """The state of each job, as the results files of a finished batch say."""
    with (outputs.directory(root, spec) / "results.csv").open(newline="", encoding="utf-8") as file:
        rows = [(int(row["index"]), JobState[row["state"]]) for row in csv.DictReader(file)]
    assert [index for index, _ in rows] == list(range(1, spec.jobs + 1)), "a job has no row, or two"
    return [state for _, state in rows]


def present_states(connection: Connection, spec: BatchSpec) -> list[JobState]:
    """The state of each job now, as the ledger says; one that a slot is at counts as PENDING."""
    records = table.page(connection, spec.id, 1, spec.jobs, table.record_dtype(spec.outputs))
    return [JobState(int(code)) for code in records["state"]]


def check(system: "ChaosSystem", spec: BatchSpec, told: Told, *, forgotten: bool) -> list[JobState]:
    """Each job is in one state that is right, all that counts them agrees, only COMPLETED ones have a CSV."""
    place = outputs.directory(system.root, spec)
    states = states_of(system.root, spec)
    summary = json.loads((place / outputs.SUMMARY_NAME).read_text(encoding="utf-8"))
    assert summary["counters"] == counts(states), (summary["counters"], counts(states))
    if not forgotten:
        view = batches.view(system.connection, spec.id)
        assert sum(view.counters.values()) == spec.jobs, view.counters
        assert {s.name: n for s, n in view.counters.items() if n} == counts(states), (view.counters, counts(states))
        assert present_states(system.connection, spec) == states, "the table and the results files differ"
        assert audit(system.connection, system.root, spec.id) == [], system.state()
    wrong = wrong_ends(spec, states, told)
    assert not wrong, f"{wrong}\n{spec}\n{told}\n{system.state()}"
    _check_files(system.root, spec, states)
    return states


def _check_files(root: Path, spec: BatchSpec, states: list[JobState]) -> None:
    store = results.open_store(outputs.directory(root, spec), spec)
    completed = [index for index, state in enumerate(states, 1) if state is JobState.COMPLETED]
    present = (np.flatnonzero(store.present(spec.jobs)) + 1).tolist()
    if spec.output_mode == "files":
        assert present == completed, sorted(set(present) ^ set(completed))[:20]
    # A packed result that could not be committed stays in its segment, where nobody asks for it.
    assert not set(completed) - set(present), sorted(set(completed) - set(present))[:20]
    for index in random.Random(0).sample(completed, min(SAMPLE, len(completed))):
        assert store.read(index) == csv_of(spec, index), f"job {index} has other bytes"
    # The wait of each job is no part of its bytes.
    assert verify(root, replace(spec, job_seconds=0.0), sample=spec.jobs) == []
