"""What Slurm's options ask for and we can do only nearly: what is done instead, and the remark that says so.

A dependency is not among it: without it the jobs would run too early, so one that cannot be kept is an error.
"""

import re
from dataclasses import dataclass
from typing import Any

from common.options import Options, parse_dependencies
from common.programs.logs import KNOWN_SIGNS, NOWHERE, SIGN

_NO_THROTTLE = re.compile(r"%0+\s*$")
# What is another in each job.
_OF_JOB = re.compile(r"%[0-9]{0,2}[aj]")


@dataclass(frozen=True)
class Nearly:
    """``value`` is taken instead of what was asked for, None nothing at all; ``remark`` goes behind the option."""

    value: Any
    remark: str


def at_most(field: str, value: float) -> float | Nearly:
    """A limit of a job; the largest that there is, when it is above that."""
    most = next(rule.le for rule in Options.model_fields[field].metadata if hasattr(rule, "le"))
    if value <= most:
        return value
    return Nearly(most, f"is more than the largest limit, {most:_.0f} ({field}), which is taken")


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
    """Where a log goes: within ``logs/`` of the batch; of a path elsewhere what tells its jobs apart."""
    unknown = [sign for _, sign in SIGN.findall(text) if not sign or sign not in KNOWN_SIGNS]
    if unknown:
        return Nearly(None, f"has %{unknown[0]}, which is not known, and was passed over")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if text == NOWHERE or not parts or parts[-1] == "..":
        return text
    if not text.startswith(("/", "~")) and ".." not in parts:
        return "/".join(parts)
    first = next((i for i, part in enumerate(parts) if _OF_JOB.search(part)), len(parts) - 1)
    name = "/".join(part for part in parts[first:] if part != "..")
    return Nearly(name, f"is outside of the batch's directory; the logs are there, as logs/{name}")
