"""What a request sends."""

from typing import Any

from flask import request

from common.errors import InvalidInput


def json_body() -> Any:
    """The request's body, read as JSON; what cannot be read so is the client's error, however it was made."""
    try:
        return request.get_json()
    except RecursionError:
        raise InvalidInput("The body is nested too deeply") from None
