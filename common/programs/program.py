"""A program that a batch runs: its command, where it runs, and which array indices its jobs have."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

DEFAULT_STDOUT = "%A_%a.out"
DEFAULT_STDERR = "%A_%a.err"


@dataclass(frozen=True)
class Program:
    """What ``batch.json`` holds of it, under ``program``.

    ``command`` are its words; in each, ``{name}`` stands for a parameter or for one of the job's own values. With
    ``shell`` it is one word, a script for ``/bin/sh -c``, and only the environment tells it of the job.
    """

    command: tuple[str, ...]
    #: Working directory, absolute.
    directory: str
    #: Slurm's array indices, such as ``0-15:2``; empty: the job's own index.
    array: str = ""
    #: Slurm's job name, ``%x`` in the patterns below.
    name: str = ""
    #: Where a job's output is kept, in the batch's directory; Slurm's patterns. ``/dev/null`` keeps none.
    stdout: str = DEFAULT_STDOUT
    stderr: str = DEFAULT_STDERR
    shell: bool = False
    #: Hash of the words and of the files that they name: see common/programs/files.py.
    version: str = ""
    #: Those files as the words have them, each with the hash of its contents.
    files: Mapping[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {**asdict(self), "command": list(self.command)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The inverse of :meth:`to_dict`; fields of a newer version are passed over."""
        known = {each.name: values[each.name] for each in fields(cls) if each.name in values}
        return cls(**{**known, "command": tuple(known["command"])})
