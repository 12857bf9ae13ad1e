"""What a traceback says, for who wrote the simulation: in one line, and without names of our modules."""

import re

# As a traceback names a class of ours, or one in a user's file, whose module has the file's version in its name.
_MODULE = re.compile(
    r"^([ |+-]*)(?:batchsim_simulations|batchsim_beside_[0-9a-f]+|common|services)(?:\.\w+)*\.(?=\w+(?::|$))",
    re.MULTILINE,
)
# Our own errors are sentences, which say all that there is to say.
_OURS = re.compile(r"^common(?:\.\w+)+: ")


def without_modules(text: str) -> str:
    """A traceback whose exceptions have no module before their names, where that is of ours or made by us."""
    return _MODULE.sub(r"\1", text)


def place_and_reason(place: str, error: str) -> tuple[str, str]:
    """Where an error is and what it is, from what :class:`common.simulations.registry.Registry` reports.

    Of a traceback that is ``file:line``, the innermost in that file, and its last line.
    """
    lines = error.strip().splitlines() or [""]
    numbers = re.findall(rf'^ *File "{re.escape(place)}", line ([0-9]+)', error, re.MULTILINE)
    reason = without_modules(_OURS.sub("", lines[-1])).removeprefix(f"{place}: ")
    return f"{place}:{numbers[-1]}" if numbers else place, reason
