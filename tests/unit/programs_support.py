"""What tests of programs share: batches of a shell's line or an executable, and waiting for processes to be gone."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from common.batch import BatchSpec
from common.programs.program import Program
from common.programs.running import ProgramJobs


def spec_of(
    command: str | Sequence[str], directory: Path | str = "/", *, outputs: Sequence[str] = ("x",), **given: Any
) -> BatchSpec:
    """A batch of a shell's line, or of a command's words; fields of the program go where they belong."""
    words = (command,) if isinstance(command, str) else tuple(command)
    names = Program.__dataclass_fields__.keys() & given.keys()
    own = {name: given.pop(name) for name in names}
    program = Program(words, str(directory), shell=isinstance(command, str), **own)
    given = {"id": 7, "jobs": 10, "seed": 5, **given}
    return BatchSpec(outputs=tuple(outputs), program=program.to_dict(), **given)


def jobs_of(command: str | Sequence[str], directory: Path | str = "/", **given: Any) -> ProgramJobs:
    """The jobs of :func:`spec_of`; no logs are kept."""
    return ProgramJobs(spec_of(command, directory, **given))


def executable(path: Path, text: str) -> Path:
    """A file that can be run."""
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has asked for does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
