"""What Slurm's options ask for and we can do only nearly: what is done instead, and the remark that says so.

A dependency is not among it: without it the jobs would run too early, so one that cannot be kept is an error.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from common.options import Options, parse_dependencies
from common.programs.logs import KNOWN_SIGNS, NOWHERE, SIGN

_NO_THROTTLE = re.compile(r"%0+\s*$")


@dataclass(frozen=True)
class Nearly:
    """``value`` is taken instead of what was asked for, None nothing at all; ``remark`` goes behind the option."""

    value: Any
    remark: str


def at_most(field: str, value: float) -> float | Nearly:
    """A limit of a job; the largest that there is, when it is above that."""
    most = next(rule.le for rule in Options.model_fields[field].metadata if hasattr(rule, "le"))
    return (
        Nearly(most, f"is more than the largest limit, {most:_} ({field}), which is taken") if value > most else value
    )


def indices(text: str) -> str:
    """The array's indices; Slurm's ``%0`` is no throttle."""
    return _NO_THROTTLE.sub("", text)


def dependency(text: str) -> str:
    """What we can wait for. Raises ValueError."""
    if "?" in text:
        raise ValueError("one of several (?) is not supported; name those that all must be met, with commas")
    parse_dependencies(text)
    return text


def log_pattern(text: str) -> str | Nearly:
    """Where a log goes: within ``logs/`` of the batch."""
    unknown = [sign for _, sign in SIGN.findall(text) if sign not in KNOWN_SIGNS]
    if unknown:
        return Nearly(None, f"has %{unknown[0]}, which is not known, and was passed over")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text == NOWHERE or not parts:
        return text
    if text.startswith(("/", "~")) or ".." in parts:
        name = PurePosixPath(text).name
        return Nearly(name, f"is outside of the batch's directory; the logs are there, as logs/{name}")
    return "/".join(parts)
