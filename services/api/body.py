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


def json_object(*fields: str) -> dict[str, Any]:
    """The request's JSON object with at most these fields; nothing at all stands for an empty one.

    Raises :class:`InvalidInput` that names the field.
    """
    if not request.get_data():
        return {}
    body = json_body()
    if not isinstance(body, dict):
        raise InvalidInput("The body must be a JSON object", field="body")
    unknown = sorted(set(body) - set(fields))
    if unknown:
        known = f"there are {', '.join(fields)}" if fields else "there are none"
        raise InvalidInput(f"{unknown[0]} is not a field; {known}", field=unknown[0])
    return body
