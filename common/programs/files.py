"""The files that a program's command names, and the version that they make.

A word without placeholders that is the path of a file (the program itself, a script after its interpreter, data), or
``--input=`` and such a path, counts with its contents; a program that is found through ``PATH`` counts by its name
only, and so does all of a shell's line.
"""

import hashlib
import json
import os
import shutil
import stat
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from common.errors import InvalidInput
from common.programs.program import Program

# A longer file counts with its length and time instead, so that a batch of large data starts at once.
MOST_HASHED_BYTES = 64 * 2**20
DIGITS = 16


def literal(word: str) -> str | None:
    """A word of the command as the program gets it; None when it has a placeholder."""
    rest = word.replace("{{", "").replace("}}", "")
    return None if "{" in rest else word.replace("{{", "{").replace("}}", "}")


def quoted(word: str) -> str:
    """A word that shall reach the program as it is, braces and all."""
    return word.replace("{", "{{").replace("}", "}}")


def find_executable(program: Program) -> str:
    """The path of the program itself: relative to its directory, or through ``PATH``.

    Raises :class:`InvalidInput` with the field ``program`` that names the path and what is wrong.
    """
    word = "/bin/sh" if program.shell else literal(program.command[0])
    if word is None:
        raise InvalidInput(f"{program.command[0]}: the program itself cannot depend on a parameter", field="program")
    path = _path(program, word)
    if "/" not in word:
        found = shutil.which(word)
        if found is None:
            here = f"; for the file in this directory write ./{word}" if Path(path).is_file() else ""
            raise InvalidInput(f"{word}: there is no such program on the PATH{here}", field="program")
        return found
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 - workers ask at every claim, and a Path costs more than this
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise InvalidInput(f"{path}: {reason}", field="program") from None
    if stat.S_ISDIR(mode):
        raise InvalidInput(f"{path}: is a directory, and no program", field="program")
    if not os.access(path, os.X_OK):
        raise InvalidInput(f"{path}: is not executable; chmod +x {word}", field="program")
    return path


def stamped(program: Program) -> Program:
    """The program with its version as its files are now."""
    files = {} if program.shell else _files(program)
    return replace(program, files=files, version=_version(program, files))


def changed_files(program: Program) -> list[str]:
    """Which of its files are other ones than when it was stamped, or gone."""
    return [word for word, digest in program.files.items() if _digest(_path(program, word)) != digest]


def check_version(program: Program) -> None:
    """See that the program is the one that was submitted. Raises :class:`InvalidInput` that names what has changed."""
    changed = changed_files(program)
    if changed:
        names = ", ".join(_path(program, word) for word in changed)
        raise InvalidInput(
            f"{names} has changed since the batch was submitted; the batch needs version {program.version}",
            field="program",
        )


def _files(program: Program) -> dict[str, str]:
    found = {}
    for place, word in enumerate(program.command):
        for part in (word, *word.partition("=")[2:]):
            name = literal(part)
            # A program's bare name is looked for in PATH, never here.
            if name and (place > 0 or "/" in name) and (digest := _digest(_path(program, name))):
                found[name] = digest
    return found


def _version(program: Program, files: Mapping[str, str]) -> str:
    what = [list(program.command), program.shell, dict(files)]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:DIGITS]


def _path(program: Program, word: str) -> str:
    return os.path.join(program.directory, word.removeprefix("./"))  # noqa: PTH118 - as above


def _digest(path: str) -> str:
    """Hash of a file's contents; "" when it is no file."""
    try:
        seen = os.stat(path)  # noqa: PTH116 - as above
        if not stat.S_ISREG(seen.st_mode):
            return ""
        return _contents(path, seen.st_ino, seen.st_size, seen.st_mtime_ns)
    except (OSError, ValueError):
        # ValueError: a word with a zero byte, or too long for a path.
        return ""


@lru_cache(1024)
def _contents(path: str, _inode: int, size: int, time_ns: int) -> str:
    """Read again only when the file's inode, length or time has changed: workers ask at every claim."""
    if size > MOST_HASHED_BYTES:
        return hashlib.sha256(f"{size} {time_ns}".encode()).hexdigest()[:DIGITS]
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DIGITS]
