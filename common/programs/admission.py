"""What a program must be to be accepted: there, executable, and able to be filled in."""

import re
from collections.abc import Collection

from common.errors import InvalidInput
from common.programs.array import ArrayIndices
from common.programs.files import find_executable
from common.programs.logs import check_patterns
from common.programs.placeholders import OWN, check, variable
from common.programs.program import Program
from common.rows import COLUMNS

MOST_NAME_CHARACTERS = 100
# A shell's own ${NAME} is meant for it.
_BRACES = re.compile(r"(?<!\$)\{([A-Za-z_][A-Za-z0-9_]*)\}")


def admit(program: Program, names: Collection[str], outputs: Collection[str]) -> None:
    """See that a program can be run with parameters of these ``names`` for these ``outputs``.

    Raises :class:`InvalidInput` that names the field.
    """
    check_name(program.name)
    for name in names:
        if not name.isidentifier():
            raise InvalidInput(f"{name[:40]!r} is no name of a parameter: letters, digits and _", field=name[:40])
    for output in outputs:
        check_output(output)
        if output in names:
            raise InvalidInput(f"{output} is a parameter and an output; give one another name", field="outputs")
    if len(set(outputs)) < len(outputs):
        raise InvalidInput("outputs: a name is there twice", field="outputs")
    check(program, names)
    check_patterns(program)
    if program.shell:
        _check_line(program.command[0], names)
    if program.array:
        ArrayIndices.parse(program.array)
    find_executable(program)


def check_output(name: str) -> None:
    """See that a name can be that of an output. Raises :class:`InvalidInput`."""
    if not name.isidentifier():
        raise InvalidInput(f"outputs: {name!r:.60} is not a name: letters, digits and _", field="outputs")
    if name in COLUMNS:
        raise InvalidInput(f"outputs: {name} is a column that every batch has; give another name", field="outputs")


def check_name(name: str) -> None:
    """See that a name can be that of a job, which may become part of a file's. Raises :class:`InvalidInput`."""
    if len(name) > MOST_NAME_CHARACTERS or "/" in name or not name.isprintable():
        raise InvalidInput(
            f"job_name is {name!r:.60}; it must be up to {MOST_NAME_CHARACTERS} characters without /", field="job_name"
        )


def _check_line(line: str, names: Collection[str]) -> None:
    for match in _BRACES.finditer(line):
        name = match[1]
        if name in OWN or name in names:
            instead = variable(name) if name in names else _ENVIRONMENT.get(name, "JOB_INDEX")
            raise InvalidInput(
                f"command: {{{name}}} is not filled in in a shell's line, or its value could be run as a command; "
                f'write "${instead}"',
                field="command",
            )


_ENVIRONMENT = {
    "seed": "JOB_SEED",
    "seed31": "JOB_SEED31",
    "index": "JOB_INDEX",
    "task": "SLURM_ARRAY_TASK_ID",
    "attempt": "JOB_ATTEMPT",
    "batch": "SLURM_ARRAY_JOB_ID",
    "dir": "JOB_DIR",
}
