"""The writer of ``packed`` outputs; :mod:`common.packed` says what it writes."""

import errno
import os
import re
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Self

from common.batch import BatchSpec
from common.outputs import directory, staging
from common.packed import JOB_BYTES, PACKED_NAME, blocks, encode, lock_file, write_all
from common.packed_index import indexed_end

# A buffer of this size becomes a block before the slice ends.
FLUSH_BYTES = 4 * 2**20
# pread(2) gives at most 2 GiB at once.
MAX_CSV_BYTES = 2**30
_UNSAFE = re.compile(r"[^A-Za-z0-9_.-]")
# Together with the rest it stays below the 255 bytes of a file name.
_LONGEST_SLOT = 150
# macOS has no fdatasync.
_sync_data = getattr(os, "fdatasync", os.fsync)


class PackedWriter:
    """Writes the CSVs of one batch for one slot into its segment; used as :class:`common.job_writer.JobWriter`.

    ``durability`` is ``none``, or ``slice`` or ``file``, which are the same here: :meth:`sync` makes all that was
    written durable at once, with one fdatasync. Until then it is in this process's memory, or lost with the machine.

    Methods raise OSError; ENOENT means that the batch's staging directory is gone. After a failed write the buffer is
    kept and :meth:`sync` may be tried again; after a failed fdatasync the writer is of no more use.
    """

    def __init__(self, root: Path, spec: BatchSpec, slot: str, durability: str) -> None:
        self._jobs = spec.jobs
        self._durable = durability != "none"
        self._fence = staging(root, spec)
        self._indices: list[int] = []
        self._parts: list[bytes] = []
        self._bytes = 0
        # The end of the last whole block, and what of it is known to be on disk.
        self._end, self._synced = 0, -1
        self._broken = False
        place = directory(root, spec)
        with ExitStack() as stack:
            self._staging = _open_directory(stack, self._fence)
            self._place = _open_directory(stack, place)
            with suppress(FileExistsError):
                (place / PACKED_NAME).mkdir()
            self._packed = _open_directory(stack, place / PACKED_NAME)
            # Again: if the batch was moved away meanwhile, this packed/ is the next one's.
            self._check_fence()
            self._take_segment(stack, _UNSAFE.sub("_", slot)[:_LONGEST_SLOT])
            self._descriptors = stack.pop_all()

    def _take_segment(self, stack: ExitStack, slot: str) -> None:
        """Open the slot's segment, or the next one that no zombie of the slot holds and that is not damaged."""
        number, self._name = 0, f"segment-{slot}.bin"
        while not self._take(stack):
            number += 1
            self._name = f"segment-{slot}.{number}.bin"

    def _take(self, stack: ExitStack) -> bool:
        # Readers may still know where jobs lie in the segment of this name that was given up.
        descriptor = None if self._is_given_up() else lock_file(self._name, self._packed)
        if descriptor is None:
            return False
        with ExitStack() as held:
            held.callback(os.close, descriptor)
            self._segment, self._end = descriptor, 0
            # What was given up between our look and our lock is a new file now; and had the index seen more than there
            # is, it would tell of other jobs' bytes once the segment has grown again.
            if self._is_given_up() or not self._resume(indexed_end(self._packed, self._name)):
                return False
            stack.callback(held.pop_all().close)
        return True

    def _is_given_up(self) -> bool:
        with suppress(FileNotFoundError):
            os.stat(_closed(self._name), dir_fd=self._packed, follow_symlinks=False)
            return True
        return False

    def _resume(self, least: int = 0) -> bool:
        """Find the end of the last whole block and cut off what of one is torn.

        False when there is more behind it, or it ends before ``least``: what was whole is damaged, which may be what
        people have been told is done. Nothing is cut off then, and nothing may be appended.
        """
        size = os.fstat(self._segment).st_size
        for block in blocks(self._segment, self._end, size):
            if block.start > self._end:
                return False
            self._end = block.end
        if self._end < least:
            return False
        if size > self._end:
            os.ftruncate(self._segment, self._end)
        return True

    def write(self, index: int, data: bytes) -> None:
        """Take job ``index``'s CSV, at most 1 GiB; it is written with others, at the latest by :meth:`sync`.

        Raises OSError, and then has not taken it; ValueError when the batch has no such job.
        """
        if self._bytes >= FLUSH_BYTES:
            self._flush()
        size = len(data)
        if not 0 < index <= self._jobs or size > MAX_CSV_BYTES:
            raise ValueError(f"job {index} of {self._jobs} with {size} bytes cannot be written")
        self._indices.append(index)
        self._parts.append(data)
        self._bytes += size + JOB_BYTES

    def sync(self) -> None:
        """Write what is buffered as a block and make it durable, if the durability asks for it."""
        self._flush()
        if not self._durable or self._end == self._synced:
            return
        try:
            _sync_data(self._segment)
            if self._synced < 0:
                # The segment's name is an entry of packed/, and that one of the batch's directory.
                os.fsync(self._packed)
                os.fsync(self._place)
        except OSError:
            self._abandon()
            raise
        self._synced = self._end

    def refresh(self) -> None:
        """Go on behind the last whole block, which may be a forked child's; cut off what of one is torn."""
        if not self._resume():
            self._broken = True

    def close(self) -> None:
        """Close the segment. What was not synced is dropped: nobody has been told of it."""
        self._descriptors.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def _flush(self) -> None:
        self._check_fence()
        if self._broken:
            raise OSError(errno.EIO, "Nothing may be appended to this segment; open another", self._name)
        if not self._parts:
            return
        block = encode(self._indices, self._parts)
        try:
            write_all(self._segment, block, self._end)
        except OSError:
            # If even this fails, the next block is written over the torn one.
            with suppress(OSError):
                os.ftruncate(self._segment, self._end)
            raise
        self._end += len(block)
        self._indices, self._parts, self._bytes = [], [], 0

    def _check_fence(self) -> None:
        """The directory that was opened still has its name: st_nlink of a removed one differs between file systems."""
        if not os.path.samestat(os.fstat(self._staging), self._fence.stat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(self._fence))

    def _abandon(self) -> None:
        """Let nobody append to this segment again.

        After a failed sync the kernel may hold pages as clean that are not on disk. Blocks behind them would be lost
        with them in a power cut, and to cut them off would take back what a reader has found.
        """
        self._broken = True
        with suppress(OSError):
            os.rename(self._name, _closed(self._name), src_dir_fd=self._packed, dst_dir_fd=self._packed)


def _closed(name: str) -> str:
    """What a segment is called to which nothing may be appended any more."""
    return f"{name.removesuffix('.bin')}.closed.bin"


def _open_directory(stack: ExitStack, path: Path) -> int:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return descriptor
