"""``batchsim run``: one batch on this machine, from nothing to the CSV files, then everything is gone again."""

import sys
import time
from collections.abc import Sequence

from common.batch import INITIAL_RANGES
from common.options import DEFAULTS, Options
from common.programs.program import Program
from common.settings import Settings
from services.local.embedded import EXIT_FAILED, embedded
from services.local.relay import Relay
from services.local.supervisor import ProcessDied


def run(
    settings: Settings,
    *,
    resume: bool = False,
    jobs: int | None = None,
    options: Options = DEFAULTS,
    program: Program | None = None,
    outputs_of_program: Sequence[str] = (),
) -> int:
    """Run the start-up batch, or with ``resume`` what is missing of the last one, and print a summary.

    ``jobs`` is a number that was asked for; without one the sweep or the array says it, or NUM_JOBS. With ``program``
    its jobs are runs of that, which give ``outputs_of_program``. Returns the exit code: 0 when every
    job completed. Raises :class:`common.errors.SettingsError` before anything was started.
    """
    begin = time.monotonic()
    if settings.num_jobs > INITIAL_RANGES and "log_level" not in settings.model_fields_set:
        # A bar says more than a log line per slice; who wants those sets LOG_LEVEL.
        settings = settings.model_copy(update={"log_level": "WARNING"})
    relay = Relay()
    try:
        with embedded(settings, relay, events=False) as running:
            # Only now, while the worker starts on another core: these imports take as long as the worker's.
            from services.local.watch import Asked, Watch

            asked = Asked(options, program, outputs_of_program, jobs)
            return Watch(running, relay, begin, asked, resume=resume).finish()
    except ProcessDied as error:
        print(f"batchsim: {error.message}", file=sys.stderr)  # noqa: T201 - a command's answer
        return EXIT_FAILED
