"""How long the estimates of a large batch take, as a client of the API sees it.

    python -m benchmarks.estimates --jobs 1000000

The job table is filled through the ledger's own functions, with values drawn here; the batch still runs, so the answers
are of the kind that people ask for while they wait. Then each address is asked for several times, and the median shown:
over all jobs, a page of 1,000 points of a sweep of as many jobs, and the batch itself with its warnings.
"""

import statistics
import time
from pathlib import Path

import numpy as np

from benchmarks.frame import parser, print_heading, print_table, workspace
from benchmarks.system import System
from common.batch import BatchSpec, JobState
from common.ledger import Connection, batches, table
from common.ledger.table import SEGMENT_JOBS, record_dtype
from common.settings import Settings
from common.statistics import moments
from common.sweep import Sweep
from services.api.app import create_app

POINTS = 1000
ROUNDS = 5


def fill(connection: Connection, batch_id: int, jobs: int, *, swept: bool) -> None:
    """Enter a batch of which all jobs but the last have completed."""
    points = min(POINTS, jobs)
    sweep = Sweep("grid", {"raises": [n / 1e6 for n in range(points)]}, replications=jobs // points)
    spec = BatchSpec(batch_id, jobs, 1, simulation="faulty", sweep=sweep.to_dict() if swept else {})
    dtype, rng = record_dtype(spec.outputs), np.random.default_rng(1)
    values: list[np.ndarray] = []
    for first in range(1, jobs, SEGMENT_JOBS):
        records = np.zeros(min(SEGMENT_JOBS, jobs - first), dtype=dtype)
        records["state"], records["attempt"] = JobState.COMPLETED, 1
        records["out:sum"] = rng.normal(500, 91, len(records))
        records["out:mean"] = records["out:sum"] / 10
        values.append(records["out:sum"].copy())
        table.write(connection, batch_id, first, records.tobytes(), dtype.itemsize)
    found = np.concatenate(values)
    batches.set_statistics(connection, batch_id, {"sum": moments(found), "mean": moments(found / 10)})
    batches.submit(connection, spec, completed=jobs - 1, ranges=[(jobs, 1)])


def measure(connection: Connection, url: str, root: Path, jobs: int) -> list[tuple[str, str, str]]:
    """Fill two batches and ask: what, the median, and the longest answer time."""
    fill(connection, 1, jobs, swept=False)
    fill(connection, 2, jobs, swept=True)
    client = create_app(Settings(_env_file=None, redis_url=url, output_dir=root)).test_client()  # type: ignore[call-arg]
    addresses = {
        "all jobs": "/batches/1/estimates",
        f"a page of {min(POINTS, jobs):,} points": f"/batches/2/points?limit={POINTS}",
        "the batch": "/batches/1",
        "the sweep": "/batches/2",
    }
    rows = []
    for what, address in addresses.items():
        seconds = []
        # The first one imports SciPy.
        for _ in range(ROUNDS + 1):
            begin = time.perf_counter()
            response = client.get(address)
            seconds.append(time.perf_counter() - begin)
            assert response.status_code == 200, response.text
        rows.append((what, f"{statistics.median(seconds[1:]):.3f} s", f"{max(seconds):.3f} s"))
    return rows


def main() -> None:
    """Print the table."""
    made = parser(__doc__)
    made.add_argument("--jobs", type=int, default=1_000_000, help="completed jobs of each batch")
    given = made.parse_args()
    print_heading(f"estimates of {given.jobs:,} jobs with two outputs, over HTTP within one process")
    with workspace(given.dir) as base, System(base) as system:
        print_table(("", "median", "longest"), measure(system.connection, system.url, base, given.jobs))


if __name__ == "__main__":
    main()
