"""What every measurement begins and ends with: options, a scratch directory, a heading, a table."""

import argparse
import logging
import os
import platform
import shutil
import signal
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import structlog

# A small file takes a block; directory entries and the journal come on top.
_BYTES_PER_FILE = 4500


def parser(description: str | None) -> argparse.ArgumentParser:
    """An option parser with what all measurements take."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--dir", type=Path, help="where to write (default: the working directory)")
    return made


def numbers(text: str) -> list[int]:
    """``1000,10_000`` as a list; for argparse."""
    return [int(part) for part in text.split(",")]


@contextmanager
def workspace(directory: Path | None) -> Iterator[Path]:
    """A fresh directory for the files of one run, removed afterwards, also after SIGTERM.

    From here on our own side logs warnings only, so that the table stands alone.
    """
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    base = Path(tempfile.mkdtemp(prefix="bench-", dir=directory or Path.cwd()))
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        yield base
    finally:
        signal.signal(signal.SIGTERM, before)
        shutil.rmtree(base, ignore_errors=True)


def _leave(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


def require_space(directory: Path, files: int) -> None:
    """End with one line when so many CSVs do not fit on the disk."""
    needed, free = files * _BYTES_PER_FILE, shutil.disk_usage(directory).free
    if needed > free:
        raise SystemExit(f"{files:,} files need {needed / 1e9:.0f} GB in {directory}; {free / 1e9:.0f} GB are free")


def print_heading(text: str) -> None:
    """Say when, on what and what."""
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {machine}; {text}", flush=True)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print rows under their columns: the first to the left, the others to the right."""
    lines = [columns, *rows]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        cells = [f"{cell:>{width}}" for cell, width in zip(line[1:], widths[1:], strict=True)]
        print("  ".join([f"{line[0]:{widths[0]}}", *cells]).rstrip(), flush=True)
