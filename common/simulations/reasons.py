"""Why a simulation's file cannot be used, in one line."""

import re


def place_and_reason(place: str, error: str) -> tuple[str, str]:
    """Where an error is and what it is, from what :class:`common.simulations.registry.Registry` reports.

    Of a traceback that is ``file:line``, the innermost in that file, and its last line.
    """
    lines = error.strip().splitlines() or [""]
    numbers = re.findall(rf'^ *File "{re.escape(place)}", line ([0-9]+)', error, re.MULTILINE)
    return f"{place}:{numbers[-1]}" if numbers else place, lines[-1].removeprefix(f"{place}: ")
