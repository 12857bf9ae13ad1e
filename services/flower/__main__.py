"""Start Flower: ``python -m services.flower``. Behind a password, read-only, and its state kept over a restart."""

import argparse
import os
import sys
import tempfile
from pathlib import Path

from common import queue, settings
from common.errors import SettingsError


def main(arguments: list[str] | None = None) -> int:
    """Run Flower until it is told to stop; returns 2 when a setting is wrong."""
    parser = argparse.ArgumentParser(prog="python -m services.flower")
    parser.add_argument("--state", type=Path, default=Path(tempfile.gettempdir()) / "flower", help="its state file")
    options = parser.parse_args(arguments)
    try:
        configured = settings.load()
        password = configured.flower_password.get_secret_value()
        for name, value in (("REDIS_URL", configured.redis_url), ("FLOWER_PASSWORD", password)):
            if not value:
                raise SettingsError(f"{name} is empty: Flower needs it")
    except SettingsError as error:
        print(f"batchsim flower: {error.message}", file=sys.stderr)  # noqa: T201 - a command's answer
        return 2
    # By environment, for a command line can be read by every process of the machine.
    os.environ["FLOWER_BASIC_AUTH"] = f"{configured.flower_user}:{password}"
    queue.make_app(configured.broker_url).start(
        [
            "flower",
            f"--address={configured.api_host}",
            f"--port={configured.flower_port}",
            "--read_only=True",
            "--persistent=True",
            f"--db={options.state}",
            "--state_save_interval=10000",
            "--purge_offline_workers=60",
            "--max_tasks=10000",
            "--logging=warning",
        ]
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
