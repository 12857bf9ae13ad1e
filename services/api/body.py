"""What a request sends."""

import json
from typing import Any

from flask import request
from werkzeug.exceptions import BadRequest

from common.errors import InvalidInput
from common.wording import valid_text


def json_body() -> Any:
    """The request's body, read as JSON; what cannot be read so is the client's error, however it was made."""
    try:
        body = request.get_json()
        for name, value in body.items() if isinstance(body, dict) else [("body", body)]:
            refuse_invalid_text({name: value}, name)
        return body
    except RecursionError:
        raise InvalidInput("The body is nested too deeply", field="body") from None
    except BadRequest:
        raise InvalidInput(f"The body is not valid JSON: {_fault(request.get_data())}", field="body") from None


def refuse_invalid_text(value: Any, field: str) -> None:
    """Raise :class:`InvalidInput` when a text within ``value`` is none: JSON can name half of a surrogate pair.

    No file could hold it, no program could be given it.
    """
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        field, half = valid_text(field), valid_text(error.object[error.start])
        raise InvalidInput(f"{field} has a text with {half} in it, which is half of a character", field=field) from None


def _fault(body: bytes) -> str:
    """Why these bytes are no JSON, and where."""
    if not body.strip():
        return "it is empty"
    try:
        json.loads(body)
    except json.JSONDecodeError as error:
        return f"{error.msg[0].lower()}{error.msg[1:]} at line {error.lineno}, column {error.colno}"
    except UnicodeDecodeError as error:
        return f"it is not UTF-8 at byte {error.start + 1}"
    except ValueError:
        return "a number in it has too many digits"
    return "it cannot be read"


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
