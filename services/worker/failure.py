"""How a job's failure reads: the traceback of the user's own code, and last one line that says what it was and where.

Whoever shows a failure in one line takes the last. Names of our own modules mean nothing to a user, nor do our frames.
"""

import sysconfig
import traceback
from collections.abc import Iterator
from pathlib import Path
from types import FrameType, TracebackType

from common.errors import BatchSimError
from common.programs.failure import ProgramFailed
from common.returned import WrongResult
from common.simulations.reasons import without_modules
from common.simulations.registry import BUILT_IN
from common.wording import valid_text
from services.worker.guard import Guard, Limits, TimeLimitReached

MAX_ERROR_CHARACTERS = 4000
# Of the line that says what it was.
MOST_LINE_CHARACTERS = 300
# Their messages are written for people, and say all that there is to say.
_PLAIN = (ProgramFailed, BatchSimError, WrongResult)
_OURS = ("services", "common")
_GUARD = Guard.run.__code__.co_filename
_LIBRARIES = tuple(f"{place}/" for name, place in sysconfig.get_paths().items() if name.endswith(("lib", "stdlib")))


def failure_text(error: BaseException, limits: Limits) -> str:
    """What people read of a job's failure; the end of it, when that is very long."""
    if isinstance(error, _PLAIN):
        return valid_text(str(error))[-MAX_ERROR_CHARACTERS:]
    limit = _limit_reached(error, limits)
    own = _without_our_lead(error.__traceback__)
    if limit and own is None:
        return limit
    told = traceback.TracebackException(type(error), error, own or error.__traceback__)
    while own is not None and told.stack[-1].filename == _GUARD:
        # The signal's handler, which interrupted the line before it.
        told.stack.pop()
    last = [without_modules(line) for line in told.format_exception_only()]
    text = without_modules("".join(told.format()))
    # Of a syntax error the source comes first; notes come last.
    named = next((line for line in last if not line.startswith(" ")), "").splitlines()[0]
    account = (limit or _shortened(named)) + _place(own)
    if [f"{named}\n"] == last and (len(named) <= MOST_LINE_CHARACTERS if not limit else named.isidentifier()):
        text = text.removesuffix(last[0])
    return valid_text(f"{text}{account}\n")[-MAX_ERROR_CHARACTERS:]


def _limit_reached(error: BaseException, limits: Limits) -> str:
    """Which limit of the batch the job has reached, if that is what ended it."""
    if isinstance(error, TimeLimitReached):
        return f"TimeLimit: ran for longer than {limits.time_seconds:g} s"
    if isinstance(error, MemoryError) and limits.memory_mb:
        return f"OutOfMemory: wanted more memory than its limit of {limits.memory_mb} MB"
    return ""


def _shortened(line: str) -> str:
    if len(line) <= MOST_LINE_CHARACTERS:
        return line
    half = MOST_LINE_CHARACTERS // 2
    return f"{line[:half]} … {line[-half:]}"


def _without_our_lead(found: TracebackType | None) -> TracebackType | None:
    """The traceback from where it leaves our code; None when it never does."""
    while found is not None and _is_ours(found.tb_frame):
        found = found.tb_next
    return found


def _is_ours(frame: FrameType) -> bool:
    module = str(frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in _OURS and module.rpartition(".")[2] not in BUILT_IN


def _place(own: TracebackType | None) -> str:
    """Where in the user's code it happened: the innermost line that is of no library."""
    lines = list(_lines(own))
    mine = [line for line in lines if not line[0].startswith(_LIBRARIES)] or lines[:1]
    if not mine:
        return ""
    path, number = mine[-1]
    file, here = Path(path), Path.cwd()
    return f" ({file.relative_to(here) if file.is_relative_to(here) else file}, line {number})"


def _lines(own: TracebackType | None) -> Iterator[tuple[str, int]]:
    """The files and lines that it went through, not ours, nor what has no file, such as what ``exec`` was given."""
    for frame, number in traceback.walk_tb(own):
        if not _is_ours(frame) and not frame.f_code.co_filename.startswith("<"):
            yield frame.f_code.co_filename, number
