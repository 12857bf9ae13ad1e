"""Write the CSVs of one batch for one slot: a file for each job."""

import os
from pathlib import Path
from typing import Self

from common.batch import BatchSpec
from common.outputs import directory, staging
from common.syncing import sync_filesystem


class JobWriter:
    """Writes the CSVs of one batch for one slot: staged, renamed, and synced as the durability asks.

    ``durability`` is ``none``, ``slice`` (:meth:`sync` makes all that was written durable at once) or ``file``.
    Methods raise OSError; ENOENT from :meth:`write` means that the batch's staging directory is gone.
    """

    def __init__(self, root: Path, spec: BatchSpec, slot: str, durability: str) -> None:
        self._temporary = f"{slot}.tmp"
        self._each_file = durability == "file"
        self._each_slice = durability == "slice"
        self._staging = os.open(staging(root, spec), os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._directory = os.open(directory(root, spec), os.O_RDONLY | os.O_DIRECTORY)
        except OSError:
            os.close(self._staging)
            raise

    def write(self, index: int, data: bytes) -> None:
        """Write ``job_<index>.csv``."""
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644, dir_fd=self._staging)
        try:
            # A nearly full disk takes a part of it; the next write says why.
            while data:
                data = data[os.write(descriptor, data) :]
            if self._each_file:
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(self._temporary, f"job_{index}.csv", src_dir_fd=self._staging, dst_dir_fd=self._directory)

    def sync(self) -> None:
        """Make the slice's files durable, if the durability asks for it."""
        if self._each_slice:
            sync_filesystem(self._directory)
        elif self._each_file:
            os.fsync(self._directory)

    def refresh(self) -> None:
        """Files that a forked child wrote are where ours are: there is nothing to find."""

    def close(self) -> None:
        """Close the directories."""
        os.close(self._staging)
        os.close(self._directory)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()
