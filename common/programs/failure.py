"""How a job that runs a program fails."""

from common.batch import JobState, Reason


class ProgramFailed(Exception):
    """The job ended without a result; the text is for people, and its last line is the shortest account of it.

    ``exit_code`` and ``signal`` are what the job table shows.
    """

    def __init__(
        self,
        text: str,
        *,
        state: JobState = JobState.FAILED,
        reason: Reason = Reason.NonZeroExitCode,
        exit_code: int = 1,
        signal: int = 0,
    ) -> None:
        super().__init__(text)
        self.state = state
        self.reason = reason
        self.exit_code = exit_code
        self.signal = signal


class NoResult(ProgramFailed):
    """The program ended with 0, and what it has printed or written is not the result that it should give."""

    def __init__(self, text: str) -> None:
        super().__init__(text, reason=Reason.NoResult, exit_code=0)
