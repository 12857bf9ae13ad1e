"""The connection to Redis, its scripts, and the translation of its errors."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import redis
from redis.backoff import ExponentialBackoff, NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import NoScriptError, RedisError, ResponseError
from redis.retry import Retry

from common.errors import BrokerUnavailable, LedgerFault
from common.ledger.keys import PREFIX

SCRIPTS = Path(__file__).with_name("scripts")
# What Redis names its place with when a script ends with an error.
_IN_A_SCRIPT = "user_script"
# What a script ends with when not it but Redis is to blame, for the time being; redis-py has no class for these.
_PASSING = ("BUSY", "MISCONF", "NOREPLICAS", "UNKILLABLE")


class Connection:
    """A pool of connections to one Redis; every command's error comes out as :class:`BrokerUnavailable`.

    But for a script's own error, which is a :class:`LedgerFault`. Opens nothing until its first command.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 5.0, retries: int = 3) -> None:
        self.url = url
        backoff = ExponentialBackoff(cap=1.0, base=0.05) if retries else NoBackoff()
        # Never retry_on_timeout for kombu's sake is kombu's matter; here a commit that timed out is sent again,
        # which is safe because it is fenced by its token and its first job.
        self.redis: Any = redis.Redis.from_url(
            url,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=min(timeout_seconds, 5.0),
            **({} if url.startswith("unix") else {"socket_keepalive": True}),
            health_check_interval=30,
            retry=Retry(backoff, retries),
        )

    def run(self, script: str, keys: list[str], args: list[Any]) -> Any:
        """Run a script of ``scripts/`` by name; it is loaded when Redis does not know it."""
        with translated():
            digest, source = _script(script)
            try:
                return self.redis.evalsha(digest, len(keys), *keys, *args)
            except NoScriptError:
                return self.redis.eval(source, len(keys), *keys, *args)

    def command(self, *words: Any) -> Any:
        """One Redis command."""
        with translated():
            return self.redis.execute_command(*words)

    def many(self, commands: Iterable[Sequence[Any]]) -> list[Any]:
        """Several commands in one round trip; not a transaction."""
        with translated():
            pipeline = self.redis.pipeline(transaction=False)
            for words in commands:
                pipeline.execute_command(*words)
            return list(pipeline.execute())

    def close(self) -> None:
        """Close the pool's connections."""
        self.redis.close()


@contextmanager
def translated() -> Iterator[None]:
    """Turn Redis's errors into ours."""
    try:
        yield
    except RedisConnectionError as error:
        raise BrokerUnavailable(f"Redis does not answer: {error}") from error
    except RedisError as error:
        if _is_fault(error):
            raise LedgerFault(f"A script of the ledger failed: {error}") from error
        raise BrokerUnavailable(f"Redis answers with an error: {error}") from error


def _is_fault(error: RedisError) -> bool:
    """Whether a script ended by an error of its own, which it would meet again."""
    # Its subclasses are what Redis says of itself: out of memory, a replica, loading.
    said = str(error)
    return type(error) is ResponseError and _IN_A_SCRIPT in said and not said.startswith(_PASSING)


@cache
def _script(name: str) -> tuple[str, str]:
    from hashlib import sha1

    parts = [(SCRIPTS / f"{part}.lua").read_text(encoding="utf-8") for part in ("lib", "endings", name)]
    source = "".join([f"local P = '{PREFIX}'\n", *parts])
    return sha1(source.encode(), usedforsecurity=False).hexdigest(), source
