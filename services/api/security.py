"""Who may call: a bearer token when one is set, and no requests from other sites' pages."""

import hmac

from flask import Flask, Response, request

from common.errors import BatchSimError, Unauthorized

OPEN_PATHS = ("/health", "/health/live")
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")


class CrossSite(BatchSimError):
    """A page of another site asked the browser to change something here."""

    status = 403
    title = "Forbidden"


def register(app: Flask, token: str) -> None:
    """Guard all routes of this app; with a token, all but the health checks ask for it."""

    @app.before_request
    def check_token() -> None:
        if not token or request.path in OPEN_PATHS:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "basic" and request.authorization and request.authorization.password:
            # A browser cannot send a bearer token by itself: the token is accepted as the password, too.
            given = request.authorization.password
        if not hmac.compare_digest(given.strip().encode(), token.encode()):
            raise Unauthorized("Send the header 'Authorization: Bearer <API_TOKEN>'.")

    @app.before_request
    def refuse_other_sites() -> None:
        if request.method in SAFE_METHODS:
            return
        if request.headers.get("Sec-Fetch-Site", "none") not in ("same-origin", "none"):
            raise CrossSite("Requests that change something are not taken from other sites' pages.")

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = (
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
            "frame-ancestors 'none'; base-uri 'none'"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response
