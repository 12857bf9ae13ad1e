"""Accept a batch: first its ``batch.json`` on the volume, then its entry in the ledger, then its messages.

In this order nothing can be lost: a crash before the ledger leaves a directory that no batch refers to; a crash
after it leaves ranges without messages, which the housekeeper publishes.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog
from celery import Celery
from kombu.exceptions import OperationalError

from common import outputs, planning, provenance, queue, recovery
from common.batch import BatchSpec, JobState, check
from common.errors import Conflict, InvalidInput, LedgerIncomplete, StorageUnavailable
from common.ledger import Connection, batches, control
from common.ledger.batches import BatchView
from common.options import DEFAULTS, Options, read_options
from common.programs.files import stamped
from common.programs.program import Program
from common.seeds import draw_seed
from common.settings import Settings

log = structlog.get_logger()

# What a rerun does not take over: it waits for nothing, and the limit is a number of this batch.
NOT_AGAIN = ("dependency", "hold", "max_fails")


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
        jobs: int | None,
        seed: int | None = None,
        *,
        job_seconds: float = 0.0,
        options: Options = DEFAULTS,
        program: Program | None = None,
        outputs_of_program: Sequence[str] = (),
        startup: bool = False,
        idempotency_key: str = "",
        key_seconds: int = batches.IDEMPOTENCY_SECONDS,
    ) -> BatchSpec:
        """Accept a batch of ``jobs`` jobs; returns its specification, of the first time if the key was used before.

        With ``program`` its jobs are runs of that, which give ``outputs_of_program``; else of the simulation that the
        options name. A sweep or an array says itself how many jobs it has; then ``jobs`` may be None.
        Raises :class:`InvalidInput`, :class:`StorageUnavailable`, :class:`BrokerUnavailable`, or, when a batch of this
        key, or one that it depends on, is still to be rebuilt, :class:`LedgerIncomplete`; then no new batch exists.
        """
        simulation = planning.simulation_of(options, program, outputs_of_program)
        jobs = planning.size(jobs, options, simulation)
        check(jobs, seed, job_seconds)
        # Before anything is asked that a rebuild may change meanwhile.
        complete = batches.is_marked(self._connection)
        if idempotency_key and (known := batches.known_submit(self._connection, idempotency_key)):
            return self._known(known, seed, job_seconds, planning.fields(options, jobs, simulation) | {"jobs": jobs})
        if idempotency_key and not complete and self._is_to_be_rebuilt(key=idempotency_key):
            raise LedgerIncomplete(
                "Redis was emptied, and the batch of this Idempotency-Key is being rebuilt; try again.",
                field="Idempotency-Key",
            )
        self._check_dependencies(jobs, options, complete=complete)
        fields = planning.fields(options, jobs, simulation)
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
            environment=provenance.environment(simulation),
            defaults=planning.defaults(fields, simulation),
            **fields,
        )
        spec = replace(spec, command=provenance.command(spec, outputs.directory(self._root, spec)))
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
            return self._known(accepted, seed, job_seconds, {**fields, "jobs": jobs})
        try:
            queue.publish(self._app, ranges)
        except OperationalError as error:
            # The batch is accepted: what the ledger holds is published by the housekeeper.
            log.warning("publish.failed", batch=accepted, error=str(error))
        log.info("batch.submitted", batch=accepted, jobs=jobs, seed=spec.seed)
        return spec

    def _known(self, batch_id: int, seed: int | None, job_seconds: float, fields: dict[str, Any]) -> BatchSpec:
        spec = batches.view(self._connection, batch_id).spec
        # As it was submitted: of a batch that was rebuilt the ledger has what has been changed since.
        written = outputs.read_spec(outputs.locate(self._root, spec))
        spec = written if written and written.id == spec.id else spec
        given = {"job_seconds": job_seconds, **fields}
        # The simulation's file may have changed since; the batch is what it was.
        other = [name for name, value in given.items() if name != "version" and _differs(name, spec, value)]
        if seed not in (None, spec.seed):
            other.append("seed")
        if other:
            raise Conflict(
                f"This Idempotency-Key belongs to batch {spec.id}, which has another {' and another '.join(other)}.",
                field="Idempotency-Key",
            )
        return spec

    def _is_to_be_rebuilt(self, *, key: str = "", batch_id: int = 0) -> bool:
        return recovery.is_to_be_rebuilt(self._connection, self._root, key=key, batch_id=batch_id)

    def _check_dependencies(self, jobs: int, options: Options, *, complete: bool) -> None:
        if sum(kind == "aftercorr" for kind, _ in options.dependency) > 1:
            raise InvalidInput("dependency: aftercorr can name one batch only", field="dependency")
        for kind, on in options.dependency:
            if not batches.exists(self._connection, on):
                if not complete and self._is_to_be_rebuilt(batch_id=on):
                    raise LedgerIncomplete(
                        f"Redis was emptied, and batch {on} is being rebuilt; try again.", field="dependency"
                    )
                raise InvalidInput(f"dependency: there is no batch {on}", field="dependency")
            size = batches.view(self._connection, on).spec.jobs
            if kind == "aftercorr" and size != jobs:
                raise InvalidInput(
                    f"dependency: aftercorr needs batches of one size; batch {on} has {size} jobs, this one {jobs}",
                    field="dependency",
                )

    def start_up(
        self,
        settings: Settings,
        key: str,
        *,
        jobs: int | None = None,
        options: Options = DEFAULTS,
        program: Program | None = None,
        outputs_of_program: Sequence[str] = (),
    ) -> BatchSpec:
        """The start-up batch of ``key``, which stands for one life of a container: submitted once, however often.

        It has ``jobs`` jobs; without them as the sweep or the array says, or NUM_JOBS. A batch of an earlier life that
        still runs with the same size and seed is taken over; one with another size or seed is cancelled. Files of older
        batches move to their own directory first.
        """
        key = f"startup:{key}"
        known = batches.known_submit(self._connection, key)
        if known:
            return batches.view(self._connection, known).spec
        simulation = planning.simulation_of(options, program, outputs_of_program)
        if jobs is None and not planning.says_size(options, simulation):
            jobs = settings.num_jobs
        size = planning.size(jobs, options, simulation)
        # Before anything is moved or cancelled.
        fields = planning.fields(options, size, simulation)
        with outputs.exclusive(self._root):
            own = outputs.read_spec(self._root)
            if own is not None and own.key == key:
                # Redis has forgotten it, the volume has not.
                recovery.rebuild(self._connection, self._app, self._root, own)
                return own
            current = self.current()
            if current and not current.ended:
                same = all(getattr(current.spec, name) == value for name, value in {"jobs": size, **fields}.items())
                if same and settings.seed in (None, current.spec.seed):
                    batches.remember(self._connection, key, current.spec.id)
                    log.info("startup.taken_over", batch=current.spec.id)
                    return current.spec
                cancelled, _ = control.cancel(self._connection, current.spec.id)
                log.warning("startup.replaced", batch=current.spec.id, cancelled_jobs=cancelled)
            self._archive()
            return self.submit(
                jobs,
                settings.seed,
                job_seconds=settings.job_seconds,
                options=options,
                program=program,
                outputs_of_program=outputs_of_program,
                startup=True,
                idempotency_key=key,
                key_seconds=0,
            )

    def resume(self) -> tuple[BatchSpec, int]:
        """Go on with the start-up batch that ``batch.json`` describes: what is there is kept, what is missing runs.

        Returns the batch, and how many of its jobs were done before. Raises :class:`InvalidInput` when there is none.
        """
        with outputs.exclusive(self._root):
            own = outputs.read_spec(self._root)
            if own is None:
                raise InvalidInput(
                    f"There is nothing to resume: {self._root}/ has no {outputs.SPEC_NAME}", field="resume"
                )
            if batches.exists(self._connection, own.id):
                view = batches.view(self._connection, own.id)
                return own, view.done - view.counters[JobState.CANCELLED] - view.counters[JobState.ABORTED]
            return own, recovery.rebuild(self._connection, self._app, self._root, own)

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
            spec = current.spec
            again = read_options({name: getattr(spec, name) for name in Options.model_fields if name not in NOT_AGAIN})
            # Of the command line; what is declared is looked up again by its name.
            own = Program.from_dict(spec.program) if spec.program and not spec.version else None
            return self.submit(
                None if spec.sweep else spec.jobs,
                job_seconds=spec.job_seconds,
                options=again,
                program=stamped(own) if own else None,
                outputs_of_program=spec.outputs if own else (),
                startup=True,
            )

    def current(self) -> BatchView | None:
        """The newest start-up batch."""
        batch_id = batches.startup_id(self._connection)
        return batches.view(self._connection, batch_id) if batch_id else None

    def _archive(self) -> None:
        moved = outputs.archive_startup(self._root)
        if moved:
            log.info("startup.archived", batch=moved[0], files=moved[1], to=str(self._root / str(moved[0])))


def _differs(name: str, spec: BatchSpec, value: Any) -> bool:
    own = getattr(spec, name)
    if name != "program" or not own or not value:
        return bool(own != value)
    return not spec.version and {**own, "version": "", "files": {}} != {**value, "version": "", "files": {}}
