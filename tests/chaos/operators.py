"""Does random things to a batch: ``python -m tests.chaos.operators <seed> <seconds> <redis> <root> <batch>``.

Prints one JSON object: how often each action was answered and refused, which jobs were asked to be cancelled, and what
nobody should ever see.
"""

import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from common import queue
from common.batch import JobState
from common.control import Controller
from common.errors import BatchSimError, BrokerUnavailable, Conflict
from common.ledger import Connection, batches

Action = tuple[str, Callable[[], object]]


def actions(chance: random.Random, controller: Controller, batch: int, jobs: int) -> tuple[Action, list[int]]:
    """One action, drawn with ``chance``, and the jobs that it would cancel."""
    first = chance.randint(1, jobs)
    span = (first, min(jobs, first + chance.randint(0, jobs // 50)))
    throttle, priority = chance.choice([0, 1, 2, 3, 8]), chance.randint(-100, 100)
    drawn: Action = chance.choice(
        [
            ("cancel", lambda: controller.cancel(batch, [span])),
            ("hold", lambda: controller.adjust(batch, "held", 1)),
            ("release", lambda: controller.adjust(batch, "held", 0)),
            ("throttle", lambda: controller.adjust(batch, "throttle", throttle)),
            ("priority", lambda: controller.adjust(batch, "priority", priority)),
            ("requeue", lambda: controller.requeue(batch)),
            ("requeue cancelled", lambda: controller.requeue(batch, [JobState.CANCELLED])),
        ]
    )
    return drawn, list(range(span[0], span[1] + 1)) if drawn[0] == "cancel" else []


def main() -> int:
    """Act until the time is over."""
    seed, seconds, url, root, batch = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), sys.argv[5]
    connection, chance = Connection(url), random.Random(seed)
    controller = Controller(connection, queue.make_app(url), root)
    jobs = batches.view(connection, int(batch)).spec.jobs
    answered: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    asked: set[int] = set()
    strange: list[str] = []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        (name, act), cancelled = actions(chance, controller, int(batch), jobs)
        asked.update(cancelled)
        try:
            act()
            answered[name] += 1
        except (Conflict, BrokerUnavailable) as error:
            refused[error.message.replace(str(root), "<root>")] += 1
        except (BatchSimError, OSError, ValueError) as error:
            strange.append(f"{name}: {error!r}")
        time.sleep(chance.uniform(0, 0.05))
    said = {"answered": answered, "refused": refused, "asked": sorted(asked), "strange": strange}
    sys.stdout.write(json.dumps(said) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
