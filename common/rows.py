"""Rows of a job's CSV, as the csv module writes and reads them."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

# The columns of results.csv that every batch has; parameters that are swept and outputs come after them.
COLUMNS = ("index", "seed", "state", "attempt", "worker", "started", "elapsed", "cpu", "max_rss_kb", "exit", "signal",
           "reason")  # fmt: skip


class _Encoder:
    """A file that the csv module writes to; ``writerow`` returns what ``write`` does: the line's bytes."""

    write = staticmethod(str.encode)


class RowFormat:
    """Formats one job's row as a whole CSV file, as Python's csv module writes it (lines end with CR LF)."""

    __slots__ = ("_writerow", "header")

    def __init__(self, columns: Sequence[str]) -> None:
        self._writerow: Callable[[Iterable[Any]], bytes] = csv.writer(_Encoder()).writerow
        #: The first line.
        self.header: bytes = self._writerow(columns)

    def __call__(self, row: Iterable[Any]) -> bytes:
        """The file's bytes."""
        return self.header + self._writerow(row)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a job's CSV, with numbers and lists read as such."""
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            yield {name: json.loads(text) for name, text in row.items()}
