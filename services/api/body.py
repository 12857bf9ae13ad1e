"""What a request sends."""

import json
from typing import Any

from flask import request

from common.errors import InvalidInput
from common.spelling import GivenTwice, read_json
from common.wording import valid_text


def json_body() -> Any:
    """The request's body, read as JSON; what cannot be read so is the client's error, however it was made."""
    if not request.is_json:
        # Flask refuses the content type.
        return request.get_json()
    body = _read(request.get_data())
    for name, value in body.items() if isinstance(body, dict) else [("body", body)]:
        refuse_invalid_text({name: value}, name)
    return body


def _read(body: bytes) -> Any:
    try:
        return read_json(body)
    except GivenTwice as error:
        raise InvalidInput(f"The body is ambiguous: {error}", field=error.name) from None
    except ValueError as error:
        raise InvalidInput(f"The body is not valid JSON: {_fault(body, error)}", field="body") from None


def refuse_invalid_text(value: Any, field: str) -> None:
    """Raise :class:`InvalidInput` when a text within ``value`` is none: JSON can name half of a surrogate pair.

    No file could hold it, no program could be given it.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        field, half = valid_text(field), valid_text(error.object[error.start])
        raise InvalidInput(f"{field} has a text with {half} in it, which is half of a character", field=field) from None


def _fault(body: bytes, error: ValueError) -> str:
    """Why these bytes are no JSON, and where."""
    if not body.strip():
        return "it is empty"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg[0].lower()}{error.msg[1:]} at line {error.lineno}, column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"it is not UTF-8 at byte {error.start + 1}"
    return str(error)


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
