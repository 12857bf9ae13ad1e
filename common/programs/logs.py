"""What a job's program printed, kept in the batch's directory under ``logs/``, one file for each attempt and stream.

The names follow Slurm's patterns: ``%A`` is the batch, ``%a`` the array index, ``%j`` both as ``%A_%a``, ``%x`` the
name, ``%N`` the host, ``%u`` the user, ``%%`` a percent sign; ``%4a`` fills up with zeros. From the second attempt on
its number comes before the suffix: ``7_42.2.out``. Jobs that a pattern does not tell apart, by ``%a`` or ``%j``,
overwrite one another's file.

Like the CSVs they are written in the batch's staging directory first: once that is gone, nothing new comes.
"""

import getpass
import os
import re
import secrets
import socket
from pathlib import Path, PurePosixPath

from common.errors import InvalidInput, StorageUnavailable
from common.programs.failure import ProgramFailed
from common.programs.program import Program

FOLDER = "logs"
NOWHERE = "/dev/null"
MOST_NAME_BYTES = 200
SIGN = re.compile(r"%([0-9]{0,2})(.?)", re.DOTALL)
KNOWN_SIGNS = "AajxNu%"


def check_patterns(program: Program) -> None:
    """See that both patterns give files inside of the batch's directory.

    Raises :class:`InvalidInput` with the pattern and what it must be.
    """
    found = {field: _check(field, getattr(program, field), program.name) for field in ("stdout", "stderr")}
    out, err = (PurePosixPath(name) for name in found.values())
    if NOWHERE not in found.values() and (out in err.parents or err in out.parents):
        raise InvalidInput(f"stderr: {err} and stdout {out} cannot be a file and a directory", field="stderr")


def _check(field: str, pattern: str, name: str) -> str:
    if pattern == NOWHERE:
        return pattern
    unknown = next((sign for _, sign in SIGN.findall(pattern) if sign not in KNOWN_SIGNS or not sign), None)
    if unknown is not None:
        raise InvalidInput(
            f"{field}: %{unknown} in {pattern!r:.80} is not known; there are "
            f"{' '.join(f'%{sign}' for sign in KNOWN_SIGNS)}",
            field=field,
        )
    path = expand(pattern, name, 1, 1)
    parts = path.split("/")
    if path.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in path:
        raise InvalidInput(
            f"{field} is {pattern!r:.80}; it must be a file's path inside of the batch's directory, "
            f"such as %A_%a.out, or {NOWHERE}",
            field=field,
        )
    if any(len(os.fsencode(part)) > MOST_NAME_BYTES for part in parts):
        raise InvalidInput(f"{field}: a name in it has more than {MOST_NAME_BYTES} bytes", field=field)
    return path


def expand(pattern: str, name: str, batch: int, task: int, attempt: int = 1) -> str:
    """The path that a pattern gives, relative to ``logs/``."""

    def sign(match: re.Match[str]) -> str:
        width, letter = int(match[1] or 0), match[2]
        if letter in "Aa":
            return f"{batch if letter == 'A' else task:0{width}d}"
        if letter == "N":
            return socket.gethostname().partition(".")[0]
        # A name is one part of a path, whatever is in it.
        return {"j": f"{batch}_{task}", "x": name.replace("/", "_"), "%": "%"}.get(letter) or _user()

    path = SIGN.sub(sign, pattern)
    if attempt == 1:
        return path
    suffix = PurePosixPath(path).suffix
    return f"{path.removesuffix(suffix)}.{attempt}{suffix}"


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())


class Logs:
    """Keeps the logs of one batch, whose directory is ``place``; nothing is made there before there is something."""

    def __init__(self, program: Program, batch: int, place: Path) -> None:
        self._program = program
        self._batch = batch
        self._folder = place / FOLDER
        self._staging = place / f".staging-{batch}"
        self._temporary = f"log-{secrets.token_hex(6)}.tmp"
        self._open: tuple[int, int] | None = None

    def keep(self, task: int, attempt: int, out: bytes, err: bytes) -> None:
        """Write what there is. Raises :class:`StorageUnavailable`."""
        program = self._program
        if program.stdout == program.stderr:
            out, err = out + err, b""
        for pattern, data in ((program.stdout, out), (program.stderr, err)):
            if data and pattern != NOWHERE:
                name = expand(pattern, program.name, self._batch, task, attempt)
                try:
                    self._write(name, data)
                except (NotADirectoryError, IsADirectoryError, FileExistsError) as error:
                    # No other place and no later time would make it better.
                    raise ProgramFailed(f"{FOLDER}/{name} cannot be written: {error.strerror}") from error
                except OSError as error:
                    raise StorageUnavailable(
                        f"The outputs directory cannot be written: {error.strerror}: {self._folder / name}",
                        field="OUTPUT_DIR",
                    ) from error

    def close(self) -> None:
        """Close the directories."""
        for descriptor in self._open or ():
            os.close(descriptor)
        self._open = None

    def _write(self, name: str, data: bytes) -> None:
        staging, folder = self._open or self._enter()
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=staging)
        try:
            # A nearly full disk takes a part of it; the next write says why.
            while data:
                data = data[os.write(descriptor, data) :]
        finally:
            os.close(descriptor)
        if "/" in name:
            (self._folder / name).parent.mkdir(parents=True, exist_ok=True)
        os.rename(self._temporary, name, src_dir_fd=staging, dst_dir_fd=folder)

    def _enter(self) -> tuple[int, int]:
        staging = os.open(self._staging, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._folder.mkdir(exist_ok=True)
            self._open = staging, os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            os.close(staging)
            raise
        return self._open
