"""One system call that makes thousands of small files durable."""

import ctypes
import os
import sys
from typing import Any


def sync_filesystem(descriptor: int) -> None:
    """syncfs(2) where there is one, else sync(2): one call for thousands of small files. Raises OSError."""
    syncfs = _syncfs()
    if syncfs is None:
        os.sync()
    elif syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _syncfs() -> Any:
    if not sys.platform.startswith("linux"):
        return None
    return getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
