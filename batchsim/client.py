"""Talk to a server over HTTP."""

import json
from http.client import HTTPException, InvalidURL
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from common.errors import BatchSimError, BrokerUnavailable, InvalidInput

TIMEOUT_SECONDS = 10.0


class Client:
    """A server's API; errors come as the classes of :mod:`common.errors`."""

    def __init__(self, url: str, token: str = "") -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidInput(f"--url={url}: must start with http:// or https://", field="url")
        try:
            urlsplit(url)
        except ValueError as error:
            raise InvalidInput(f"--url={url}: {error}", field="url") from None
        self._url = url.rstrip("/")
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def submit(
        self,
        jobs: int | None,
        seed: int | None = None,
        *,
        job_seconds: float = 0.0,
        idempotency_key: str = "",
        **options: Any,
    ) -> dict[str, Any]:
        """Submit a batch; returns ``{"id", "jobs", "seed", "url"}``. ``options`` are those of common/options.py."""
        given = {"jobs": jobs, "seed": seed, "job_seconds": job_seconds, **options}
        body = {name: value for name, value in given.items() if value is not None}
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        return self._call("POST", "/batches", body, headers)

    def batch(self, batch_id: int) -> dict[str, Any]:
        """A batch: its state, counters, progress and statistics."""
        return self._call("GET", f"/batches/{batch_id}")

    def simulations(self) -> dict[str, Any]:
        """What the server can run: ``{"simulations": […], "broken": {…}}``."""
        return self._call("GET", "/simulations")

    def estimates(self, batch_id: int, confidence: float) -> dict[str, Any]:
        """Each output's mean with its confidence interval and more, over all completed jobs."""
        return self._call("GET", f"/batches/{batch_id}/estimates?confidence={confidence}")

    def points(self, batch_id: int, confidence: float, offset: int = 0) -> dict[str, Any]:
        """A page of a sweep's points with their estimates."""
        return self._call("GET", f"/batches/{batch_id}/points?confidence={confidence}&offset={offset}")

    def act(self, batch_id: int, verb: str, **body: Any) -> dict[str, Any]:
        """``cancel``, ``hold``, ``release``, ``requeue`` or ``verify`` a batch; returns how that stands then."""
        return self._call("POST", f"/batches/{batch_id}/{verb}", body)

    def verification(self, batch_id: int, name: str) -> dict[str, Any]:
        """How far a verification is, and what it has found."""
        return self._call("GET", f"/batches/{batch_id}/verify/{name}")

    def update(self, batch_id: int, **changes: int | str) -> dict[str, Any]:
        """Change a batch's ``throttle``, ``priority`` or ``max_fails``; returns how it stands then."""
        return self._call("PATCH", f"/batches/{batch_id}", changes)

    def explain(self, batch_id: int, job: int | None = None) -> dict[str, Any]:
        """Why a batch, or one of its jobs, is as it is: ``{"id", "state", "reason", "details", "advice"}``."""
        return self._call("GET", f"/batches/{batch_id}/explain" + (f"?job={job}" if job is not None else ""))

    def _call(
        self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
    ) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        given = {**self._headers, **(headers or {}), "Content-Type": "application/json"}
        try:
            request = Request(self._url + path, data, given, method=method)  # noqa: S310 - the scheme was checked
            with urlopen(request, timeout=TIMEOUT_SECONDS) as response:  # noqa: S310
                found = json.load(response)
        except HTTPError as error:
            raise _problem(error) from None
        except InvalidURL as error:
            raise InvalidInput(f"--url={self._url}: {error}", field="url") from None
        except (OSError, HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            raise BrokerUnavailable(f"{self._url} does not answer: {reason}. Start a server: batchsim serve") from None
        except ValueError as error:
            raise BatchSimError(f"{self._url} does not answer as a batchsim server: {error}") from None
        if not isinstance(found, dict):
            raise BatchSimError(f"{self._url} does not answer as a batchsim server")
        return found


def _problem(error: HTTPError) -> BatchSimError:
    try:
        body = json.load(error)
    except (ValueError, OSError, HTTPException):
        body = None
    body = body if isinstance(body, dict) else {}
    detail, field = body.get("detail", error.reason), body.get("field")
    kind = InvalidInput if 400 <= error.code < 500 else BatchSimError
    return kind(f"{error.code}: {detail}", field=field)
