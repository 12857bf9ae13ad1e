"""Errors as RFC 9457 ``application/problem+json``: one shape for ours, Flask's and the unforeseen."""

import json
from typing import Any

import structlog
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from common.errors import BatchSimError

log = structlog.get_logger()


def register(app: Flask) -> None:
    """Send every error of this app as a problem document."""
    app.register_error_handler(BatchSimError, _ours)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unforeseen)


def problem(status: int, title: str, detail: str, **more: Any) -> Response:
    """A problem document; members with the value None are left out."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "instance": request.path, **more}
    text = json.dumps({name: value for name, value in body.items() if value is not None}, allow_nan=False)
    return Response(text + "\n", status, content_type="application/problem+json")


def _ours(error: BatchSimError) -> Response:
    if error.status == 500:
        log.error("request.failed", path=request.path, exc_info=error)
    response = problem(error.status, error.title, error.message, field=error.field)
    if error.retryable:
        response.headers["Retry-After"] = "2"
    if error.status == 401:
        response.headers["WWW-Authenticate"] = "Bearer"
    return response


def _http(error: HTTPException) -> Response:
    response = problem(error.code or 500, error.name, error.description or error.name)
    for name, value in error.get_headers():
        if name.lower() not in ("content-type", "content-length"):
            response.headers[name] = value
    return response


def _unforeseen(error: Exception) -> Response:
    log.error("request.failed", path=request.path, exc_info=error)
    return problem(500, "Internal error", "The server met an error of its own; its log has the details.")
