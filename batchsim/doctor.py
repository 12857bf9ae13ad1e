"""``batchsim doctor``: every batch examined, with and without a ledger."""

from collections.abc import Iterator
from pathlib import Path

from common import outputs
from common.audit import audit, missing, verify
from common.batch import BatchSpec
from common.errors import InvalidInput, NotFound
from common.ledger import Connection, batches
from common.settings import Settings
from common.simulations import registry


def examine(settings: Settings, sample: int) -> Iterator[tuple[str, bool]]:
    """One line per batch and per violated promise: (text, whether it is a problem).

    With REDIS_URL the ledger is audited, but for a batch that moves meanwhile; one that only the volume knows is
    verified by running jobs again.
    """
    registry.use(settings.simulations_dir)
    root = settings.output_dir
    connection = Connection(settings.broker_url) if settings.redis_url else None
    known = batches.all_ids(connection) if connection else []
    for batch_id in known:
        assert connection is not None
        before = batches.view(connection, batch_id)
        problems = audit(connection, root, batch_id)
        if problems and not before.ended and batches.view(connection, batch_id).counters != before.counters:
            # Its jobs ended between two looks, which then agree in nothing. One that stands still is examined.
            yield f"batch {batch_id}: runs, and moves while it is examined; look again when it has ended", False
            continue
        yield from _report(root, before.spec, problems, "ledger, files", sample)
    for spec in _on_volume(root):
        if spec.id not in known:
            yield from _report(root, spec, missing(outputs.locate(root, spec), spec)[1], "files", sample)
    if not known and not any(True for _ in _on_volume(root)):
        raise NotFound(f"There is no batch in {root}/.")


def _report(root: Path, spec: BatchSpec, problems: list[str], how: str, sample: int) -> Iterator[tuple[str, bool]]:
    try:
        problems = problems + verify(root, spec, sample=sample)
        how += ", and a sample run again"
    except InvalidInput as error:
        # No promise is broken when somebody has changed or removed what the batch ran.
        how += f"; nothing was run again: {error.message}"
    for problem in problems:
        yield f"batch {spec.id}: {problem}", True
    if not problems:
        yield f"batch {spec.id}: {spec.jobs:,} jobs, nothing wrong ({how})", False


def _on_volume(root: Path) -> Iterator[BatchSpec]:
    if not root.is_dir():
        return
    named = [entry for entry in root.iterdir() if outputs.BATCH_NAME.fullmatch(entry.name)]
    for place in [root, *sorted(named, key=lambda entry: int(entry.name))]:
        spec = outputs.read_spec(place)
        if spec is not None:
            yield spec
