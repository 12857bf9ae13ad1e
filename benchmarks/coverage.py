"""What sequential stopping costs: how often the 95 % interval holds the true mean when one waited for it to be narrow.

    python -m benchmarks.coverage

Each row runs a stop rule ``ci_halfwidth(x) < h`` many times over on samples whose mean is known, with
:class:`common.stopping.StopRule` itself, and beside it the same number of jobs fixed beforehand.
"""

import argparse
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from benchmarks.frame import print_heading
from common.estimates import t_quantile, t_quantiles
from common.stopping import StopRule

# Jobs that complete between two looks of the housekeeper: half a second of two slots with jobs of 10 ms.
JOBS_A_LOOK = 100
REPETITIONS = 10_000
# Values that are drawn at once.
CHUNK_VALUES = 2**22


@dataclass(frozen=True)
class Output:
    """A job's output with a known mean and deviation."""

    name: str
    draw: Callable[[np.random.Generator, tuple[int, int]], np.ndarray]
    mean: float
    deviation: float

    def half_width(self, jobs: int) -> float:
        """So narrow an interval takes so many jobs, if their deviation is the true one."""
        return 1.96 * self.deviation / float(np.sqrt(jobs))


OUTPUTS = (
    Output("normal", lambda rng, size: rng.normal(size=size), 0.0, 1.0),
    Output("exponential", lambda rng, size: rng.exponential(size=size), 1.0, 1.0),
    Output("Bernoulli 0.1", lambda rng, size: (rng.random(size) < 0.1).astype(float), 0.1, 0.3),
)
LEAST = (30, 100, 1000)
# The rule asks for a width that takes so many jobs.
WANTED = (100, 400)


@dataclass(frozen=True)
class Row:
    """What came of one rule: jobs at the stop, and how often the interval held the mean then; beside it at fixed n."""

    jobs: float
    covered: float
    fixed: float


def measure(output: Output, wanted: int, least: int, look: int, *, repetitions: int, seed: int = 1) -> Row:
    """Stop each sample as the rule says, looking after every ``look`` jobs; and look once at the mean number of jobs.

    The rule asks for a width that takes ``wanted`` jobs.
    """
    rule = StopRule.parse(f"ci_halfwidth(x) < {output.half_width(wanted)!r} and n >= {least}")
    stops, hits = [], []
    for values in _samples(output, repetitions, seed, max(4 * wanted, least + JOBS_A_LOOK)):
        n, mean, half = stopped(rule, values, look)
        stops.append(n)
        hits.append(np.abs(mean - output.mean) <= half)
    jobs = float(np.concatenate(stops).mean())
    count = round(jobs)
    fixed = []
    for values in _samples(output, repetitions, seed + 1, count):
        half = t_quantile(0.95, count - 1) * values.std(axis=1, ddof=1) / np.sqrt(count)
        fixed.append(np.abs(values.mean(axis=1) - output.mean) <= half)
    return Row(jobs, _part(hits), _part(fixed))


def _part(found: list[np.ndarray]) -> float:
    return float(np.concatenate(found).mean())


def _samples(output: Output, repetitions: int, seed: int, jobs: int) -> Iterator[np.ndarray]:
    """Samples of ``jobs`` values, a row each, some rows at a time."""
    rng, step = np.random.default_rng(seed), max(1, CHUNK_VALUES // jobs)
    for start in range(0, repetitions, step):
        yield output.draw(rng, (min(step, repetitions - start), jobs))


def stopped(rule: StopRule, values: np.ndarray, look: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the rule stops each row when it is looked at after every ``look`` values: how many, their mean, half-width.

    A row that the rule does not stop runs to its end.
    """
    rows, jobs = values.shape
    looks = np.arange(look, jobs + 1, look)
    if looks[-1] != jobs:
        looks = np.append(looks, jobs)
    # Sums of deviations from one guess of the mean, so that few digits are lost.
    around = float(values[:, 0].mean())
    first = np.cumsum(values - around, axis=1)[:, looks - 1]
    second = np.cumsum((values - around) ** 2, axis=1)[:, looks - 1]
    mean = around + first / looks
    deviation = np.sqrt(np.maximum(second - first**2 / looks, 0.0) / np.maximum(looks - 1, 1))
    met = rule.reached(looks, mean, deviation)
    met[:, -1] = True
    at, each = met.argmax(axis=1), np.arange(rows)
    half = t_quantiles(0.95, looks[at] - 1) * deviation[each, at] / np.sqrt(looks[at])
    return looks[at], mean[each, at], half


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repetitions", type=int, default=REPETITIONS, help="samples of each row")
    given = parser.parse_args()
    begin = time.perf_counter()
    print_heading(f"coverage of the 95 % interval at the stop, {given.repetitions:,} repetitions a row")
    print("| output | width takes | at least | looked at after | jobs at the stop | covered | fixed, as many jobs |")
    print("|---|---|---|---|---|---|---|")
    for output, wanted, least in itertools.product(OUTPUTS, WANTED, LEAST):
        for look in (JOBS_A_LOOK, 1):
            row = measure(output, wanted, least, look, repetitions=given.repetitions)
            every = "each job" if look == 1 else f"{look} jobs"
            cells = (
                output.name,
                wanted,
                f"{least:,}",
                every,
                f"{row.jobs:,.0f}",
                f"{row.covered:.1%}",
                f"{row.fixed:.1%}",
            )
            print("| " + " | ".join(str(cell) for cell in cells) + " |", flush=True)
    print(f"{time.perf_counter() - begin:.0f} s")


if __name__ == "__main__":
    main()
