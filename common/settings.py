"""Every setting, with its unit, default and limits.

A value comes from an option of the command line, else from the environment, else from ``.env`` in the working
directory, else from the default here. A secret can also be the content of a file: ``REDIS_PASSWORD_FILE`` for
``REDIS_PASSWORD``, as Docker and Kubernetes hand secrets over.
"""

import ipaddress
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from urllib.parse import quote, urlsplit, urlunsplit

from dotenv import dotenv_values
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from common.errors import SettingsError

MAX_JOBS = 100_000_000
MAX_SEED = 2**63 - 1
SECRETS = ("redis_password", "api_token", "flower_password")


def _redis_url(url: str) -> str:
    if url and urlsplit(url).scheme not in ("redis", "rediss", "unix"):
        raise ValueError("must start with redis://, rediss:// or unix://")
    return url


def _whole_number(value: object) -> object:
    """Read "1_000" as Slurm users write it, and refuse "5.0" and "1e9", which are not whole numbers as written."""
    if isinstance(value, str):
        text = value.strip()
        if not text.replace("_", "").lstrip("+-").isdecimal():
            raise ValueError("must be a whole number")
        return int(text)
    return value


Count = Annotated[int, BeforeValidator(_whole_number)]
Port = Annotated[Count, Field(ge=1, le=65535)]


class Settings(BaseSettings):
    """The validated settings of one process. Made by :func:`load`, which turns errors into one clear line."""

    model_config = SettingsConfigDict(env_file_encoding="utf-8", extra="ignore", frozen=True, env_ignore_empty=True)

    num_jobs: Count = Field(5, ge=1, le=MAX_JOBS, description="jobs of the start-up batch")
    seed: Count | None = Field(None, ge=0, le=MAX_SEED, description="seed of the start-up batch; empty: a random one")
    simulations_dir: str = Field("", description="directory with simulations of your own, beside ./simulations")
    job_seconds: float = Field(
        0.0, ge=0, le=86400, description="time that each job waits first, s; to watch the system with longer jobs"
    )
    output_dir: Path = Field(Path("outputs"), description="directory that receives the CSV files")
    workers: Count = Field(
        default_factory=lambda: (
            len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        ),
        ge=1,
        le=1024,
        description="worker slots of the embedded form; empty: the cores",
    )
    worker_partitions: str = Field(
        "default", pattern=r"^[a-z0-9][a-z0-9_,-]*$", description="partitions whose batches a worker runs, by commas"
    )
    worker_concurrency: Count = Field(1, ge=1, le=1024, description="slots of one worker container")

    api_host: str = Field("127.0.0.1", description="address that the API's process listens on")
    api_port: Port = Field(8080, description="port of the API")
    bind_address: str = Field("", description="address that the ports are published on; empty: API_HOST")
    api_token: SecretStr = Field(SecretStr(""), description="bearer token that the API asks for; empty: none")
    flower_port: Port = Field(5555, description="port of Flower")
    flower_user: str = Field("batchsim", min_length=1, pattern=r"^[^:]+$", description="user of Flower's pages")
    flower_password: SecretStr = Field(SecretStr(""), description="password of Flower's pages")

    redis_url: Annotated[str, AfterValidator(_redis_url)] = Field(
        "", description="Redis that holds queue and ledger; empty: a private embedded one"
    )
    redis_password: SecretStr = Field(SecretStr(""), description="password for REDIS_URL, if it has none in it")

    slice_seconds: float = Field(1.0, ge=0.01, le=60, description="time a slot works before it commits, s")
    lease_seconds: float = Field(
        15.0, ge=1, le=3600, description="silence after which a slot's range is offered again, s"
    )
    jobs_per_task: Count = Field(0, ge=0, le=MAX_JOBS, description="most jobs in one Celery task; 0: adaptive")
    shutdown_grace_seconds: float = Field(20.0, ge=0, le=3600, description="time for running jobs after SIGTERM, s")
    durability: Literal["none", "slice", "file"] = Field("slice", description="when CSVs are synced to disk")
    min_free_mb: Count = Field(100, ge=0, description="free space on the outputs' disk below which health fails, MB")

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="least level that is logged")
    log_format: Literal["auto", "console", "json"] = Field("auto", description="auto: console on a terminal, else json")

    @model_validator(mode="before")
    @classmethod
    def _upper_case(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name, change in (("log_level", str.upper), ("log_format", str.lower), ("durability", str.lower)):
            if isinstance(values.get(name), str):
                values[name] = change(values[name])
        return values

    @model_validator(mode="after")
    def _token_when_exposed(self) -> Self:
        if self.exposed and not self.api_token.get_secret_value():
            name = "BIND_ADDRESS" if self.bind_address else "API_HOST"
            value = self.bind_address or self.api_host
            raise ValueError(f"{name}={value} lets other machines reach the API: set API_TOKEN too, or use 127.0.0.1")
        return self

    @property
    def exposed(self) -> bool:
        """Whether other machines can reach the published ports."""
        address = self.bind_address or self.api_host
        if address == "localhost":
            return False
        try:
            return not ipaddress.ip_address(address).is_loopback
        except ValueError:
            return True

    @property
    def broker_url(self) -> str:
        """REDIS_URL with the password in it, in redis-py's spelling."""
        parts = urlsplit(self.redis_url)
        password = self.redis_password.get_secret_value()
        if not password or parts.password or parts.scheme == "unix":
            return self.redis_url
        netloc = f"{parts.username or ''}:{quote(password, safe='')}@{parts.netloc.rpartition('@')[2]}"
        return urlunsplit(parts._replace(netloc=netloc))

    def environment(self) -> dict[str, str]:
        """The settings as environment variables, for a child process that shall have the same."""
        values = {name.upper(): getattr(self, name) for name in type(self).model_fields}
        plain = {k: v.get_secret_value() if isinstance(v, SecretStr) else v for k, v in values.items()}
        return {k: str(v) for k, v in plain.items() if v not in (None, "")}


def load(overrides: Mapping[str, object] | None = None, *, env_file: Path | None = Path(".env")) -> Settings:
    """Read and check the settings.

    ``overrides`` are the options that were given on the command line, by field name. Raises
    :class:`SettingsError` with one line that names the variable and its value (never a secret's).
    """
    given = {name: value for name, value in (overrides or {}).items() if value is not None}
    files = {**(dotenv_values(env_file) if env_file else {}), **os.environ}
    secrets = {name: value for name in SECRETS if (value := _secret_file(name, files)) is not None}
    try:
        return Settings(_env_file=env_file, **{**secrets, **given})  # type: ignore[call-arg, arg-type]
    except ValidationError as error:
        raise SettingsError(*_first_line(error)) from None


def _secret_file(name: str, variables: Mapping[str, str | None]) -> str | None:
    variable = f"{name.upper()}_FILE"
    path = variables.get(variable)
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise SettingsError(f"{variable}={path}: cannot be read: {reason}", field=variable) from None


def _first_line(error: ValidationError) -> tuple[str]:
    first = error.errors(include_url=False)[0]
    reason = first["msg"].removeprefix("Value error, ")
    if not first["loc"]:
        return (reason,)
    name = str(first["loc"][0])
    value = "***" if name in SECRETS else without_password(str(first["input"]))
    # One line, whatever was given.
    shown = "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in value)
    return (f"{name.upper()}={shown}: {reason[0].lower()}{reason[1:]}",)


def without_password(url: str) -> str:
    """A URL without the user and the password in it; any other text as it is."""
    scheme, separator, rest = url.partition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}" if separator else url
