"""What the engine adds to running an executable: ``python -m benchmarks.programs``.

2,000 jobs of a small program, which computes for ``--milliseconds``, beside as many bare processes as there are slots:
each starts every second job's program with ``posix_spawn``, reads its pipe, waits for it, writes the same CSV and syncs
once a second as the engine does. Both in turn, round by round; speeds are ratios within a round, of which the median
counts.

``python -m benchmarks.programs bare DIRECTORY PROGRAM SLOT SLOTS JOBS MILLISECONDS`` is one such bare process.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import frame
from benchmarks.engine import Engine
from benchmarks.system import python
from common import outputs, results
from common.batch import BatchSpec, JobState
from common.ledger import batches
from common.programs.files import quoted
from common.programs.program import Program
from common.rows import RowFormat

BARE = "bare"
SLOTS = 2
SYNC_SECONDS = 1.0
SOURCE = """
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
int main(int count, char **words) {
    double x = count > 1 ? strtod(words[1], 0) : 0, milliseconds = count > 2 ? strtod(words[2], 0) : 0;
    while (clock() < milliseconds * CLOCKS_PER_SEC / 1000) { }
    printf("{\\"x\\": %.17g}\\n", x / 3);
    return 0;
}
"""


def main(arguments: list[str] | None = None) -> None:
    """Run and print."""
    given = sys.argv[1:] if arguments is None else arguments
    if given[:1] == [BARE]:
        directory, program, *numbers = given[1:]
        run_bare(Path(directory), program, *(int(number) for number in numbers))
        return
    parser = frame.parser(__doc__)
    parser.add_argument("--jobs", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--milliseconds", type=int, default=0, help="how long the program computes")
    options = parser.parse_args(given)
    frame.print_heading(f"{options.jobs:,} jobs of {options.milliseconds} ms, {SLOTS} slots, {options.rounds} rounds")
    ratios, bare, engine = [], [], []
    with frame.workspace(options.dir) as base:
        frame.require_space(base, 2 * options.jobs * options.rounds)
        program = _program(base)
        for number in range(options.rounds):
            # Nobody is always the first.
            for turn in (number, number + 1):
                root = base / f"{number}-{turn % 2}"
                root.mkdir()
                if turn % 2:
                    engine.append(_engine_seconds(root, program, options.jobs, options.milliseconds))
                else:
                    bare.append(_bare_seconds(root, program, options.jobs, options.milliseconds))
            ratios.append(engine[-1] / bare[-1])
            print(
                f"  round {number + 1}: bare {bare[-1]:.2f} s, engine {engine[-1]:.2f} s", file=sys.stderr, flush=True
            )
    rows = []
    for name, seconds in (("bare posix_spawn", bare), ("hpc-batch-sim", engine)):
        middle = statistics.median(seconds)
        rows.append([name, f"{options.jobs / middle:,.0f}", f"{middle / options.jobs * SLOTS * 1e6:,.0f}"])
    frame.print_table(("", "jobs/s", "µs a job and slot"), rows)
    print(
        f"median overhead: {statistics.median(ratios) - 1:+.1%} (rounds: {', '.join(f'{r - 1:+.1%}' for r in ratios)})"
    )


def _program(base: Path) -> str:
    """A small compiled program; without a compiler, something nearly as small."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return "/bin/echo"
    (base / "small.c").write_text(SOURCE, encoding="utf-8")
    subprocess.run([compiler, "-O2", "-o", str(base / "small"), str(base / "small.c")], check=True)
    return str(base / "small")


def _words(program: str, index: str, milliseconds: int) -> list[str]:
    return [program, '{"x": 1}'] if program.endswith("echo") else [program, index, str(milliseconds)]


def _engine_seconds(root: Path, program: str, jobs: int, milliseconds: int) -> float:
    with Engine(root, slots=SLOTS) as engine:
        # What a job is told goes into its words; a placeholder is one, a brace of the JSON is not.
        command = tuple(
            word if word == "{index}" else quoted(word) for word in _words(program, "{index}", milliseconds)
        )
        spec = engine.submitter.submit(jobs, 42, program=Program(command, str(root)), outputs_of_program=("x",))
        engine.wait_finished(spec.id)
        view = batches.view(engine.connection, spec.id)
        assert view.ended
        assert view.started
        assert view.counters[JobState.COMPLETED] == jobs, view.counters
        return view.ended - view.started


def _bare_seconds(root: Path, program: str, jobs: int, milliseconds: int) -> float:
    spec = BatchSpec(1, jobs, 42)
    outputs.prepare(root, spec)
    processes = [
        subprocess.Popen(
            python("-m", "benchmarks.programs", BARE, str(root), program, *map(str, (slot, SLOTS, jobs, milliseconds))),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        for slot in range(SLOTS)
    ]
    for process in processes:
        assert process.stdout
        process.stdout.readline()
    begin = time.perf_counter()
    for process in processes:
        assert process.stdin
        process.stdin.write(b"\n")
        process.stdin.flush()
    for process in processes:
        process.communicate()
        assert process.returncode == 0
    return time.perf_counter() - begin


def run_bare(root: Path, program: str, slot: int, slots: int, jobs: int, milliseconds: int) -> None:
    """One process's share. Says that it is ready, and waits for a line."""
    spec, row = BatchSpec(1, jobs, 42), RowFormat(["x"])
    with results.writer(root, spec, f"bare-{slot}", "slice") as writer:
        print("ready", flush=True)
        sys.stdin.readline()
        synced = time.perf_counter()
        for index in range(1 + slot, jobs + 1, slots):
            printed = run_program(program, _words(program, str(index), milliseconds))
            writer.write(index, row([json.loads(printed)["x"]]))
            if time.perf_counter() - synced > SYNC_SECONDS:
                writer.sync()
                synced = time.perf_counter()
        writer.sync()


def run_program(program: str, words: list[str]) -> bytes:
    """Start it, read all that it prints, and wait for it."""
    reader, writer = os.pipe()
    pid = os.posix_spawn(program, words, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1)])
    os.close(writer)
    parts = []
    while part := os.read(reader, 65536):
        parts.append(part)
    os.close(reader)
    assert os.wait4(pid, 0)[1] == 0
    return b"".join(parts)


if __name__ == "__main__":
    main()
