"""A small filesystem of its own under the outputs directory, which a test can fill, take away and give back."""

import errno
import os
import subprocess
import time
from pathlib import Path

MEGABYTES = 1024
_LEAST_BYTES = 4096
_PATIENCE_SECONDS = 5.0


class MountRefused(Exception):
    """The user may not mount here."""


class Volume:
    """A tmpfs mounted on ``root``. Raises :class:`MountRefused`."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._filler = root / ".filler"
        self._covered = self._read_only = False
        refusal = _run("mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m,mode=1777", "batchsim-chaos", str(root))
        if refusal:
            raise MountRefused(f"a small disk cannot be mounted: {refusal}")

    def fill(self) -> None:
        """Take all space that is left."""
        size, chunk = 0, 2**26
        with self._filler.open("wb") as file:
            while chunk >= _LEAST_BYTES:
                try:
                    os.posix_fallocate(file.fileno(), size, chunk)
                    size += chunk
                except OSError as error:
                    if error.errno != errno.ENOSPC:
                        raise
                    chunk //= 2

    def free(self) -> None:
        """Give the space back."""
        self._filler.unlink()

    def take_away(self) -> None:
        """What is open turns read-only, as after an error of the disk; whoever looks by name finds an empty place.

        Where a slot holds a segment of a packed batch open for writing, the first is refused, and only the second done.
        """
        # Refused as long as some process has a file open for writing, which each job does for a moment.
        until = time.monotonic() + _PATIENCE_SECONDS
        while not self._read_only and time.monotonic() < until:
            self._read_only = not _run("mount", "-o", "remount,bind,ro", str(self._root))
        _must("mount", "-t", "tmpfs", "-o", "ro,size=4k", "batchsim-gone", str(self._root))
        self._covered = True

    def bring_back(self) -> None:
        """All is as it was."""
        _must("umount", "--lazy", str(self._root))
        self._covered = False
        if self._read_only:
            _must("mount", "-o", "remount,bind,rw", str(self._root))
            self._read_only = False

    def remove(self) -> None:
        """Unmount it, whoever still uses it."""
        for _ in range(1 + self._covered):
            _run("umount", "--lazy", str(self._root))


def _must(*command: str) -> None:
    refusal = _run(*command)
    assert not refusal, f"{command}: {refusal}"


def _run(*command: str) -> str:
    """What the command complains of; "" when it did it."""
    if os.geteuid() != 0:
        return "only root may mount"
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    except FileNotFoundError as error:
        return str(error)
    return done.stderr.strip() or f"exit code {done.returncode}" if done.returncode else ""
