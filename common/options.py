"""What a user may ask of a batch beside its jobs and seed: limits, retries, order, dependencies, output mode."""

import re
from fractions import Fraction
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from common.errors import InvalidInput

Kind = Literal["afterok", "afterany", "afternotok", "aftercorr"]
DEPENDENCIES = get_args(Kind)
PARTITION = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")
MOST_DEPENDENCIES = 100
_DAY_SECONDS = 86_400.0

Dependency = tuple[Kind, int]


def _number(value: object) -> object:
    # To pydantic true is a 1.
    if isinstance(value, bool):
        raise ValueError("must be a number")
    return value


Whole = Annotated[int, BeforeValidator(_number)]
Real = Annotated[float, BeforeValidator(_number)]


def parse_dependencies(value: object) -> object:
    """Read Slurm's ``afterok:7:8,afterany:9`` as ``[("afterok", 7), ("afterok", 8), ("afterany", 9)]``.

    What is no text is handed on as it is. Raises ValueError.
    """
    if not isinstance(value, str):
        return value
    found: list[tuple[str, int]] = []
    for part in filter(None, (piece.strip() for piece in value.split(","))):
        kind, *ids = part.split(":")
        if kind not in DEPENDENCIES or not ids or not all(i.isascii() and i.isdecimal() and len(i) < 12 for i in ids):
            raise ValueError(f"{part!r} is not <type>:<batch id>, where type is one of {', '.join(DEPENDENCIES)}")
        found += [(kind, int(i)) for i in ids]
    return tuple(found)


def _max_fails(value: object) -> object:
    # JSON has one kind of number: 10.0 is ten.
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value)
    if value is None or (not isinstance(value, bool) and re.fullmatch(r"[0-9]{1,9}|[0-9]{1,3}(\.[0-9]{1,6})?%", text)):
        return None if value is None else text
    raise ValueError('must be a number of jobs, such as 10, or a part of them, such as "5%"')


def _partition(value: str) -> str:
    if not PARTITION.fullmatch(value):
        raise ValueError("must be up to 32 of a-z, 0-9, - and _")
    return value


class Options(BaseModel):
    """The validated options of one batch; made by :func:`read_options`, which turns errors into ours."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    simulation: str = Field("random_numbers", max_length=100, description="what each job runs")
    parameters: dict[str, Any] = Field({}, description="parameters of the simulation, the same for all jobs")
    sweep: dict[str, Any] = Field({}, description="parameters that vary: see common/sweep.py")
    time_limit_seconds: Real = Field(0.0, ge=0, le=30 * _DAY_SECONDS, description="time limit of a job, s; 0: none")
    memory_limit_mb: Whole = Field(0, ge=0, le=2**22, description="memory that a job may take, MB; 0: no limit")
    retries: Whole = Field(0, ge=0, le=100, description="how often a job that raises is tried again")
    retry_delay_seconds: Real = Field(
        1.0, ge=0, le=3600, description="wait before the first retry, s; doubled for each further one"
    )
    crash_limit: Whole = Field(5, ge=1, le=100, description="how often a job may kill its process before it is FAILED")
    max_fails: Annotated[str | None, BeforeValidator(_max_fails)] = Field(
        None, description="failed jobs, as a number or %, above which the rest of the batch is ABORTED"
    )
    throttle: Whole = Field(0, ge=0, le=1_000_000, description="most jobs that run at a time; 0: no limit")
    priority: Whole = Field(0, ge=-100, le=100, description="batches with a higher one go first")
    partition: Annotated[str, AfterValidator(_partition)] = Field("default", description="which workers run it")
    dependency: Annotated[tuple[Dependency, ...], BeforeValidator(parse_dependencies)] = Field(
        (), max_length=MOST_DEPENDENCIES, description="what it waits for, such as afterok:7,afterany:8"
    )
    kill_on_invalid_dependency: bool = Field(False, description="cancel it when its dependency can never be met")
    hold: bool = Field(False, description="accept it, and start it when it is released")
    until: str = Field(
        "",
        max_length=200,
        description="end it, or each point of a sweep, by itself: ci_halfwidth(price) < 0.01 and n >= 1000",
    )
    output_mode: Literal["files", "packed"] = Field(
        "files", description="a CSV file per job, or all of them packed into a few files"
    )

    def most_fails(self, jobs: int) -> int | None:
        """``max_fails`` as a number of jobs."""
        if self.max_fails is None:
            return None
        if self.max_fails.endswith("%"):
            # In binary 0.57 % of 10,000 would be 56.
            return int(Fraction(self.max_fails[:-1]) * jobs / 100)
        return int(self.max_fails)


DEFAULTS = Options.model_validate({})


def read_options(values: dict[str, Any]) -> Options:
    """Check options by name. Raises :class:`InvalidInput` that names the field and says what it must be."""
    try:
        return Options(**values)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = str(first["loc"][0]) if first["loc"] else "options"
        reason = first["msg"].removeprefix("Value error, ")
        if first["type"] == "extra_forbidden":
            raise InvalidInput(f"{name} is not a field", field=name) from None
        shown = repr(first["input"])[:80]
        raise InvalidInput(f"{name} is {shown}: {reason[0].lower()}{reason[1:]}", field=name) from None
