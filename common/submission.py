"""Accept a batch: first its ``batch.json`` on the volume, then its entry in the ledger, then its messages.

In this order nothing can be lost: a crash before the ledger leaves a directory that no batch refers to; a crash
after it leaves ranges without messages, which the housekeeper publishes.
"""

from pathlib import Path
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from common import outputs, queue, recovery
from common.batch import BatchSpec, check
from common.errors import Conflict, InvalidInput, StorageUnavailable
from common.ledger import Connection, batches, control
from common.ledger.batches import BatchView
from common.options import DEFAULTS, Options
from common.seeds import draw_seed
from common.settings import Settings
from common.simulations import simulation

log = structlog.get_logger()


class Submitter:
    """Submits batches to one ledger, queue and outputs directory."""

    def __init__(self, connection: Connection, app: Celery, root: Path, *, slots: int = 0) -> None:
        self._connection = connection
        self._app = app
        self._root = root
        # How many slots will work on the batches; 0: as many as are alive at that moment.
        self._slots = slots

    def submit(
        self,
        jobs: int,
        seed: int | None = None,
        *,
        job_seconds: float = 0.0,
        options: Options | None = None,
        startup: bool = False,
        idempotency_key: str = "",
        key_seconds: int = batches.IDEMPOTENCY_SECONDS,
    ) -> BatchSpec:
        """Accept a batch of ``jobs`` jobs; returns its specification, of the first time if the key was used before.

        Raises :class:`InvalidInput`, :class:`StorageUnavailable` or :class:`BrokerUnavailable`; then no batch exists.
        """
        check(jobs, seed, job_seconds)
        if idempotency_key and (known := batches.known_submit(self._connection, idempotency_key)):
            return self._known(known, jobs, seed, job_seconds, options)
        self._check_options(jobs, options or DEFAULTS)
        batch_id = batches.new_id(self._connection)
        if outputs.taken(self._root, batch_id):
            # Redis is younger than the volume.
            batch_id = batches.new_id(self._connection, outputs.highest_id(self._root))
        spec = BatchSpec(
            batch_id,
            jobs,
            draw_seed() if seed is None else seed,
            job_seconds=job_seconds,
            startup=startup,
            key=idempotency_key,
            **_fields(options or DEFAULTS, jobs),
        )
        try:
            outputs.prepare(self._root, spec)
        except StorageUnavailable:
            outputs.discard(self._root, spec)
            raise
        accepted, ranges = batches.submit(
            self._connection, spec, idempotency_key=idempotency_key, key_seconds=key_seconds, slots=self._slots
        )
        if accepted != spec.id:
            # Another request with the same key was faster: what was prepared for this one is no batch.
            outputs.discard(self._root, spec)
            return self._known(accepted, jobs, seed, job_seconds, options)
        try:
            queue.publish(self._app, ranges)
        except OperationalError as error:
            # The batch is accepted: what the ledger holds is published by the housekeeper.
            log.warning("publish.failed", batch=accepted, error=str(error))
        log.info("batch.submitted", batch=accepted, jobs=jobs, seed=spec.seed)
        return spec

    def _known(
        self, batch_id: int, jobs: int, seed: int | None, job_seconds: float, options: Options | None
    ) -> BatchSpec:
        spec = batches.view(self._connection, batch_id).spec
        given = {"jobs": jobs, "job_seconds": job_seconds, **_fields(options or DEFAULTS, jobs)}
        other = [name for name, value in given.items() if getattr(spec, name) != value]
        if seed not in (None, spec.seed):
            other.append("seed")
        if other:
            raise Conflict(
                f"This Idempotency-Key belongs to batch {spec.id}, which has another {' and another '.join(other)}.",
                field="Idempotency-Key",
            )
        return spec

    def _check_options(self, jobs: int, options: Options) -> None:
        simulation(options.simulation, options.parameters)
        if sum(kind == "aftercorr" for kind, _ in options.dependency) > 1:
            raise InvalidInput("dependency: aftercorr can name one batch only", field="dependency")
        for kind, on in options.dependency:
            if not batches.exists(self._connection, on):
                raise InvalidInput(f"dependency: there is no batch {on}", field="dependency")
            size = batches.view(self._connection, on).spec.jobs
            if kind == "aftercorr" and size != jobs:
                raise InvalidInput(
                    f"dependency: aftercorr needs batches of one size; batch {on} has {size} jobs, this one {jobs}",
                    field="dependency",
                )

    def start_up(self, settings: Settings, key: str) -> BatchSpec:
        """The start-up batch of ``key``, which stands for one life of a container: submitted once, however often.

        A batch of an earlier life that still runs with the same size and seed is taken over; one with another size or
        seed is cancelled. Files of older batches move to their own directory first.
        """
        key = f"startup:{key}"
        known = batches.known_submit(self._connection, key)
        if known:
            return batches.view(self._connection, known).spec
        with outputs.exclusive(self._root):
            own = outputs.read_spec(self._root)
            if own is not None and own.key == key:
                # Redis has forgotten it, the volume has not.
                recovery.rebuild(self._connection, self._app, self._root, own)
                return own
            current = self.current()
            if current and not current.ended:
                if current.spec.jobs == settings.num_jobs and settings.seed in (None, current.spec.seed):
                    batches.remember(self._connection, key, current.spec.id)
                    log.info("startup.taken_over", batch=current.spec.id)
                    return current.spec
                cancelled, _ = control.cancel(self._connection, current.spec.id)
                log.warning("startup.replaced", batch=current.spec.id, cancelled_jobs=cancelled)
            self._archive()
            return self.submit(
                settings.num_jobs,
                settings.seed,
                job_seconds=settings.job_seconds,
                startup=True,
                idempotency_key=key,
                key_seconds=0,
            )

    def resume(self) -> BatchSpec:
        """Go on with the start-up batch that ``batch.json`` describes: what is there is kept, what is missing runs.

        Raises :class:`InvalidInput` when there is none.
        """
        with outputs.exclusive(self._root):
            own = outputs.read_spec(self._root)
            if own is None:
                raise InvalidInput(
                    f"There is nothing to resume: {self._root}/ has no {outputs.SPEC_NAME}", field="resume"
                )
            recovery.rebuild(self._connection, self._app, self._root, own)
            return own

    def rerun(self) -> BatchSpec:
        """Run the start-up batch again with a new seed. Raises :class:`Conflict` while it still runs."""
        with outputs.exclusive(self._root):
            current = self.current()
            if current is None:
                raise Conflict("There is no start-up batch yet; try again when GET /jobs lists its jobs.")
            if not current.ended:
                raise Conflict(
                    f"Batch {current.spec.id} still runs: {current.done} of {current.spec.jobs} jobs are done. "
                    "Try again when it has ended."
                )
            self._archive()
            return self.submit(current.spec.jobs, job_seconds=current.spec.job_seconds, startup=True)

    def current(self) -> BatchView | None:
        """The newest start-up batch."""
        batch_id = batches.startup_id(self._connection)
        return batches.view(self._connection, batch_id) if batch_id else None

    def _archive(self) -> None:
        moved = outputs.archive_startup(self._root)
        if moved:
            log.info("startup.archived", batch=moved[0], files=moved[1], to=str(self._root / str(moved[0])))


def _fields(options: Options, jobs: int) -> dict[str, Any]:
    """The options as fields of a specification."""
    return {**options.model_dump(), "max_fails": options.most_fails(jobs)}
