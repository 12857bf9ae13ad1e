"""Does to the batches of a round what its plan says, and keeps what that excuses."""

from common.batch import BatchSpec, JobState
from common.control import RUN_AGAIN
from common.errors import BatchSimError, Conflict
from tests import support
from tests.chaos.expected import Told, of_kind
from tests.chaos.plan import Act, Step
from tests.chaos.promises import present_states
from tests.chaos.system import RECOVERY_SECONDS, SLOTS, SLOTS_PER_WORKER, ChaosSystem
from tests.chaos.ways import WayToDie

CRASHES = 5


class Acting:
    """The acts on the batches of one round."""

    def __init__(self, system: ChaosSystem, specs: list[BatchSpec]) -> None:
        self.specs = specs
        self.told = {spec.id: Told() for spec in specs}
        self._system = system
        self._held: set[int] = set()
        self._requeued: set[int] = set()
        self._emptied = False

    def take(self, step: Step) -> str:
        """Do it, unless it is not possible here; returns what was done, or ""."""
        if isinstance(step.what, Act):
            return self._act(step.what, self.specs[step.which], step.number)
        if step.what.needs_volume and self._system.volume is None:
            return ""
        self._system.inflict(step.what)
        for spec in self.specs:
            told = self.told[spec.id]
            if step.what is WayToDie.STOP_WORKER:
                # A time limit is a wall clock's: the job that each slot of the worker was at may have reached it.
                told.suspended += SLOTS_PER_WORKER
        self._emptied |= step.what is WayToDie.EMPTY_REDIS
        return step.what.name

    def _act(self, act: Act, spec: BatchSpec, number: float) -> str:
        controller = self._system.controller
        try:
            if act is Act.CANCEL:
                first = 1 + int(number * (spec.jobs - 1))
                self._cancel(spec, range(first, min(spec.jobs, first + spec.jobs // 5) + 1))
            elif act is Act.CANCEL_RUNNING:
                self._cancel(spec, range(1, spec.jobs + 1), state="RUNNING")
            elif act is Act.REQUEUE:
                self._requeued.add(spec.id)
                controller.requeue(spec.id, RUN_AGAIN)
            elif act is Act.THROTTLE:
                controller.adjust(spec.id, "throttle", round(number * SLOTS))
            elif act is Act.PRIORITY:
                controller.adjust(spec.id, "priority", round(number * 200) - 100)
            else:
                if act is Act.HOLD:
                    self._held.add(spec.id)
                controller.adjust(spec.id, "held", int(act is Act.HOLD))
                # What stood still because it was held begins now.
                self._system.recovery.start()
        except BatchSimError as error:
            return f"{act.name} {spec.id}: {error.message}"
        return f"{act.name} {spec.id} {number:.2f}"

    def _cancel(self, spec: BatchSpec, span: range, state: str = "") -> None:
        told = self.told[spec.id]
        # Whether or not an answer comes.
        told.asked.update(span)
        self._system.note_cancel()
        self._system.controller.cancel(spec.id, [(span[0], span[-1])], state=state)
        states = present_states(self._system.connection, spec)
        told.answered.update(index for index in span if states[index - 1] is JobState.CANCELLED)

    def release(self) -> None:
        """Let all go on that was held."""
        for spec in self.specs:
            if spec.id in self._held:
                support.wait_for(
                    lambda spec=spec: self._released(spec),  # type: ignore[misc]
                    RECOVERY_SECONDS, f"the release of batch {spec.id}", self._system.state,
                )  # fmt: skip
                self._system.recovery.start()

    def _released(self, spec: BatchSpec) -> bool:
        self._system.look()
        try:
            self._system.controller.adjust(spec.id, "held", 0)
        except Conflict:
            return True
        except BatchSimError:
            return self._system.forgotten(spec)
        return True

    def seconds(self) -> float:
        """How long the round's jobs take, one after the other, with all that the bad ones cost."""
        times = 1 + bool(self._requeued)
        return sum(spec.jobs * spec.job_seconds + times * self._bad_seconds(spec) for spec in self.specs)

    def _bad_seconds(self, spec: BatchSpec) -> float:
        bad = {"hangs": max(1.0, spec.time_limit_seconds), "memory": 1.0, "kills": CRASHES * 1.0}
        return sum(len(of_kind(spec, kind)) * cost for kind, cost in bad.items())

    def decide(self, spec: BatchSpec, states: dict[int, list[JobState]]) -> Told:
        """What was done to a batch, with what its dependencies' ends, which are known by now, leave of it."""
        told, everything = self.told[spec.id], set(range(1, spec.jobs + 1))
        for kind, on in spec.dependency:
            ended = states[on]
            good = {index for index, state in enumerate(ended, 1) if state is JobState.COMPLETED}
            met = kind == "afterany" or (len(good) == len(ended)) == (kind != "afternotok")
            # Ended a second time, it may have been decided by its first end.
            unsure = on in self._requeued or self._emptied
            if kind == "aftercorr":
                told.never |= everything - good
                told.unmet |= everything if unsure else set()
            elif unsure and kind != "afterany":
                told.unmet |= everything
            elif not met:
                told.never |= everything
        return told
