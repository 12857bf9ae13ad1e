"""Start programs in one directory, with nothing of ours but what they are given."""

import contextlib
import os
import signal
import weakref
from collections.abc import Mapping


class Launcher:
    """Starts programs in one directory. Raises OSError when the directory cannot be entered."""

    def __init__(self, directory: str) -> None:
        self._null = os.open(os.devnull, os.O_RDONLY)
        self._descriptors = [self._null]
        # Also when nobody closes it.
        self._end = weakref.finalize(self, _close, self._descriptors)
        try:
            self._there = self._open(directory)
            self._here = self._open(".")
        except OSError:
            self.close()
            raise
        _keep_to_ourselves()
        valid = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}
        # What is caught goes back to its default by itself; what is ignored would stay so.
        self._ignored = [number for number in valid if signal.getsignal(number) is signal.SIG_IGN]

    def _open(self, directory: str) -> int:
        # To go there needs less than to list it.
        self._descriptors.append(os.open(directory, getattr(os, "O_PATH", os.O_RDONLY) | os.O_DIRECTORY))
        return self._descriptors[-1]

    def start(self, path: str, words: list[bytes], variables: Mapping[bytes, bytes], out: int, err: int) -> int:
        """Start a program; returns its process id, which is its group's too. Raises OSError or ValueError."""
        os.fchdir(self._there)
        try:
            return os.posix_spawn(
                path,
                words,
                variables,
                file_actions=(
                    (os.POSIX_SPAWN_DUP2, self._null, 0),
                    (os.POSIX_SPAWN_DUP2, out, 1),
                    (os.POSIX_SPAWN_DUP2, err, 2),
                ),
                setpgroup=0,
                setsigmask=(),
                setsigdef=self._ignored,
            )
        finally:
            os.fchdir(self._here)

    def close(self) -> None:
        """Close the directories."""
        self._end()


def _close(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _keep_to_ourselves() -> None:
    """Let no program inherit what we have inherited: a pipe that it held would stay open as long as it lives."""
    for name in os.listdir("/dev/fd"):  # noqa: PTH208 - names are numbers here
        with contextlib.suppress(OSError):
            # One is what lists them, and closed again.
            if int(name) > 2:
                os.set_inheritable(int(name), False)
