"""Every error that a user can meet, as one tree.

Each class knows the HTTP status that it becomes at the edge and whether trying again can help. The message is
written for the user: it names the field or the thing, and says what to do.
"""


class BatchSimError(Exception):
    """Root of the tree; an error of this class itself is a defect of ours."""

    status = 500
    title = "Internal error"
    retryable = False

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field


class InvalidInput(BatchSimError):
    """A value that the user gave is wrong; ``field`` names it, and nothing was changed."""

    status = 400
    title = "Invalid input"


class SettingsError(InvalidInput):
    """A setting is wrong; the process ends with exit code 2 before it has started anything."""


class Unauthorized(BatchSimError):
    """The request carries no valid token, and one is needed."""

    status = 401
    title = "Unauthorized"


class NotFound(BatchSimError):
    """The batch, job or file does not exist."""

    status = 404
    title = "Not found"


class Conflict(BatchSimError):
    """The request is valid, but not in the present state."""

    status = 409
    title = "Conflict"


class BrokerUnavailable(BatchSimError):
    """Redis does not answer, or answers with an error of its own (loading, out of memory, wrong password)."""

    status = 503
    title = "Broker unavailable"
    retryable = True


class LedgerFault(BatchSimError):
    """A script of the ledger ended with an error: a defect of ours, which trying again does not mend."""


class LedgerIncomplete(BatchSimError):
    """Redis was emptied, and what is asked for is on the volume, to be rebuilt from there."""

    status = 503
    title = "Ledger incomplete"
    retryable = True


class StorageUnavailable(BatchSimError):
    """The outputs directory is missing, not writable, or its disk is full."""

    status = 503
    title = "Storage unavailable"
    retryable = True


class Terminated(BaseException):
    """SIGTERM came: like KeyboardInterrupt, no error, and not caught with the errors."""
