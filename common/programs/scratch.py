"""Where a job's program may leave files: a directory that is empty when it starts."""

import os
import shutil
import stat
import tempfile
import weakref
from pathlib import Path

from common.errors import StorageUnavailable
from common.programs.failure import NoResult

RESULT_NAME = "job_result.csv"
MOST_RESULT_BYTES = 64 * 2**20
# A directory that is written to while it is removed is gone after a few tries.
_REMOVAL_TRIES = 10


class Scratch:
    """``JOB_DIR`` of the jobs that one process runs, one after the other.

    Without a path it is a new directory, which :meth:`close` removes. Raises :class:`StorageUnavailable`.
    """

    def __init__(self, path: Path | None = None) -> None:
        # So that it is looked at once a job.
        self._known_empty = False
        try:
            self._path = path or Path(tempfile.mkdtemp(prefix="batchsim-jobs-"))
        except OSError as error:
            raise _unavailable(error) from error
        # Also when nobody closes it.
        self._end = weakref.finalize(self, shutil.rmtree, self._path, ignore_errors=True) if path is None else None
        self.path = str(self._path)
        self.result_path = str(self._path / RESULT_NAME)
        self.clear()

    def take_result(self) -> bytes | None:
        """What the program wrote to ``JOB_RESULT``; None when it wrote nothing there. Raises :class:`NoResult`."""
        self._known_empty = self._is_empty()
        if self._known_empty:
            return None
        try:
            # A link could lead to anything, and a pipe would make us wait.
            descriptor = os.open(self.result_path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise NoResult(f"$JOB_RESULT cannot be read: {error.strerror}") from error
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode):
                raise NoResult("$JOB_RESULT is no file")
            if found.st_size > MOST_RESULT_BYTES:
                raise NoResult(f"$JOB_RESULT has more than {MOST_RESULT_BYTES >> 20} MiB")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read()
        finally:
            os.close(descriptor)

    def clear(self) -> None:
        """Remove what was left there. Raises :class:`StorageUnavailable` when that cannot be done."""
        if self._known_empty or self._is_empty():
            self._known_empty = False
            return
        for tries_left in reversed(range(_REMOVAL_TRIES)):
            try:
                self._remove()
                self._path.mkdir(mode=0o700)
                return
            except OSError as error:
                # What has left the program's group may still write there.
                if not tries_left:
                    raise _unavailable(error) from error

    def _is_empty(self) -> bool:
        try:
            return not os.listdir(self.path)  # noqa: PTH208 - for each job
        except OSError:
            # It was removed, or closed to us.
            return False

    def _remove(self) -> None:
        if self._path.is_symlink() or self._path.is_file():
            self._path.unlink()
        if not self._path.exists():
            return
        # A program may have closed its directories, even to us.
        self._path.chmod(0o700)
        for base, folders, _ in os.walk(self._path):
            for folder in folders:
                if not (inner := Path(base, folder)).is_symlink():
                    inner.chmod(0o700)
        shutil.rmtree(self._path)

    def close(self) -> None:
        """Remove it, if it was made here."""
        if self._end is not None:
            self._end()


def _unavailable(error: OSError) -> StorageUnavailable:
    return StorageUnavailable(f"The jobs' directory cannot be used: {error.strerror}: {error.filename}", field="TMPDIR")
