"""Where a batch comes from: what was installed, on what kind of machine, and the command that repeats it."""

import os
import platform
import shlex
import sys
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from common.batch import BatchSpec
from common.options import DEFAULTS, Options

# What can change a result's bytes, or how it came about.
PACKAGES = ("hpc-batch-sim", "numpy", "celery", "redis", "pydantic")
IMAGE_VARIABLE = "IMAGE_DIGEST"


@cache
def environment() -> dict[str, Any]:
    """Python, packages, platform and, in a container that says so, the image."""
    found = {
        "python": sys.version.split()[0],
        "packages": {name: _version(name) for name in PACKAGES},
        "platform": f"{platform.system()} {platform.machine()}",
    }
    image = os.environ.get(IMAGE_VARIABLE)
    return found | ({"image": image} if image else {})


def command(spec: BatchSpec) -> str:
    """The exact command that runs the batch again, here or elsewhere."""
    words = ["batchsim", "run", "--seed", str(spec.seed)]
    if not spec.sweep:
        words += ["--jobs", str(spec.jobs)]
    if spec.job_seconds:
        words += ["--job-seconds", f"{spec.job_seconds:g}"]
    for name in Options.model_fields:
        value = getattr(spec, name)
        if name in ("parameters", "sweep", "dependency", "hold", "partition") or value == getattr(DEFAULTS, name):
            continue
        flag = f"--{name.replace('_', '-')}"
        words += [flag] if value is True else [flag, str(value)]
    words += [word for name, value in spec.parameters.items() for word in ("--param", f"{name}={value}")]
    return shlex.join([*words, *_sweep_words(spec.sweep)])


def _sweep_words(sweep: dict[str, Any]) -> list[str]:
    if not sweep:
        return []
    words = []
    for name, values in sweep.get("axes", {}).items():
        words += ["--param", f"{name}={','.join(str(value) for value in values)}"]
    if sweep["mode"] == "points" and sweep["points"] != [{}]:
        words += ["--from-json", "points.json"]
    words += ["--zip"] if sweep["mode"] == "zip" else []
    words += ["--replications", str(sweep["replications"])]
    return words + (["--common-random-numbers"] if sweep["common_random_numbers"] else [])


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
