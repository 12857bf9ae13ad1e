"""Rows of a job's CSV, as the csv module writes and reads them."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

# The columns of results.csv that every batch has; parameters that are swept and outputs come after them.
COLUMNS = ("index", "seed", "state", "attempt", "worker", "started", "elapsed", "cpu", "max_rss_kb", "exit", "signal",
           "reason")  # fmt: skip


class RowFormat:
    """Formats one job's row as a whole CSV file, as Python's csv module writes it (lines end with CR LF)."""

    def __init__(self, columns: Sequence[str]) -> None:
        self._buffer = io.StringIO(newline="")
        self._writer = csv.writer(self._buffer)
        self._writer.writerow(columns)
        self._start = self._buffer.tell()

    @property
    def header(self) -> bytes:
        """The first line."""
        return self._buffer.getvalue()[: self._start].encode()

    def __call__(self, row: Iterable[Any]) -> bytes:
        """The file's bytes; the header is formatted once and stays in the buffer."""
        self._buffer.seek(self._start)
        self._buffer.truncate()
        self._writer.writerow(row)
        return self._buffer.getvalue().encode()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a job's CSV, with numbers and lists read as such."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {name: json.loads(text) for name, text in row.items()}
