"""The environment of a job's program: the worker's own without our secrets, and what the job is.

A process of the same user can read the worker's own environment through ``/proc``; what is kept from a job here is
what it would print or hand on without meaning to.
"""

import os
from collections.abc import Mapping

from common.programs.placeholders import text, variable
from common.programs.program import Program
from common.settings import SECRETS

# Where the ledger is, which has a password in it or needs none; and what the worker's processes tell each other.
_OURS = ("REDIS_URL", "CELERY_BROKER_URL", "BATCHSIM_BOARD", "BATCHSIM_WORKER")


def inherited(own: Mapping[bytes, bytes] | None = None) -> dict[bytes, bytes]:
    """What a job's program has of the worker's environment."""
    names = [*_OURS, *(name.upper() for name in SECRETS)]
    left_out = {os.fsencode(each) for name in names for each in (name, f"{name}_FILE")}
    return {name: value for name, value in (os.environb if own is None else own).items() if name not in left_out}


def of_batch(program: Program, batch: int, count: int, least: int, most: int) -> dict[bytes, bytes]:
    """What all jobs of a batch have: Slurm's variables of an array of ``count`` tasks, from ``least`` to ``most``."""
    return {
        b"SLURM_ARRAY_JOB_ID": b"%d" % batch,
        b"SLURM_ARRAY_TASK_COUNT": b"%d" % count,
        b"SLURM_ARRAY_TASK_MIN": b"%d" % least,
        b"SLURM_ARRAY_TASK_MAX": b"%d" % most,
        b"SLURM_JOB_NAME": os.fsencode(program.name),
        b"SLURM_SUBMIT_DIR": os.fsencode(program.directory),
    }


def of_parameters(parameters: Mapping[str, object]) -> dict[bytes, bytes]:
    """Each parameter as ``PARAM_<NAME>``, written as in the command."""
    return {os.fsencode(variable(name)): os.fsencode(text(value)) for name, value in parameters.items()}


def of_job(batch: int, index: int, task: int, attempt: int, seed: int, short: int) -> dict[bytes, bytes]:
    """What only this attempt has. ``SLURM_JOB_ID`` is the job's name here, ``<batch>_<task>``."""
    return {
        b"JOB_INDEX": b"%d" % index,
        b"JOB_SEED": b"%d" % seed,
        b"JOB_SEED31": b"%d" % short,
        b"JOB_ATTEMPT": b"%d" % attempt,
        b"SLURM_JOB_ID": b"%d_%d" % (batch, task),
        b"SLURM_ARRAY_TASK_ID": b"%d" % task,
        b"SLURM_RESTART_COUNT": b"%d" % (attempt - 1),
    }
