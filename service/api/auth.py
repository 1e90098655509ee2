"""Authorization: which requests need which key. docs/decisions/0013-access-control.md has the reasons.

public  needs no key: health, the page and the documentation. They are the same for every installation; health names
        models only to clients that may use them.
client  needs a key of CONVOY_API_KEYS or CONVOY_ADMIN_KEYS, if CONVOY_API_KEYS is set: predictions, and everything that
        describes models.
admin   needs a key of CONVOY_ADMIN_KEYS; if that is not set, a client on this machine: everything that changes state.
"""

import re
from enum import Enum, auto
from functools import lru_cache

from fastapi import Request
from starlette.datastructures import Headers

from service.api.route_template import route_template
from service.api_keys import Keys
from service.errors import ForbiddenError, UnauthorizedError
from service.settings import Settings, is_loopback
from service.validation import shortened


class Access(Enum):
    PUBLIC = auto()
    CLIENT = auto()
    ADMIN = auto()


# Route templates, with * for each parameter.
_PUBLIC = {
    "/",
    "/docs",
    "/docs/",
    "/redoc",
    "/redoc/",
    "/favicon.ico",
    "/livez",
    "/readyz",
    "/v2/health/live",
    "/v2/health/ready",
}
_CLIENT_POST = {
    "/predict",
    "/models/*/predict",
    "/models/*/versions/*/predict",
    "/evaluate",
    "/models/*/evaluate",
    "/models/*/versions/*/evaluate",
    "/v1/models/*:predict",
    "/v2/models/*/infer",
    "/v2/models/*/versions/*/infer",
    "/v2/repository/index",
}

# Headers that proxies add, apart from those that begin with x-forwarded-.
_FORWARDED = {"cf-connecting-ip", "forwarded", "true-client-ip", "via", "x-client-ip", "x-real-ip"}
_HOST = re.compile(r"(\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[\w.-]+))(:\d*)?", re.ASCII | re.IGNORECASE)


@lru_cache(maxsize=256)
def required_access(method: str, template: str) -> Access:
    """Unlisted routes are closed: a GET needs client access, anything else admin access."""
    path = re.sub(r"\{[^}]*\}", "*", template)
    if method in {"GET", "HEAD"}:
        return Access.PUBLIC if path in _PUBLIC else Access.CLIENT
    return Access.CLIENT if method == "POST" and path in _CLIENT_POST else Access.ADMIN


class Guard:
    """A dependency of every route: it runs before the body is read."""

    def __init__(self, settings: Settings) -> None:
        self._client_keys = Keys(settings.api_keys)
        self._admin_keys = Keys(settings.admin_keys)

    async def __call__(self, request: Request) -> None:
        self.check(request, required_access(request.method, route_template(request.scope)))

    def check(self, request: Request, access: Access) -> None:
        """Raises UnauthorizedError or ForbiddenError."""
        if access is Access.CLIENT and self._client_keys:
            self._check_key(request.headers, admin=False)
        elif access is Access.ADMIN and self._admin_keys:
            self._check_key(request.headers, admin=True)
        elif access is Access.ADMIN:
            _check_local(request)

    def has_client_access(self, request: Request) -> bool:
        """Returns whether the client may see model names on public routes."""
        keys = _keys(request.headers)
        return not self._client_keys or any(key in self._admin_keys or key in self._client_keys for key in keys)

    def _check_key(self, headers: Headers, *, admin: bool) -> None:
        keys = _keys(headers)
        if not keys:
            raise UnauthorizedError(
                "This request needs a key; send it as Authorization: Bearer KEY, or as X-API-Key: KEY."
            )
        if any(key in self._admin_keys for key in keys):
            return
        if not any(key in self._client_keys for key in keys):
            raise UnauthorizedError("The service does not know this key; ask its operator for one.")
        if admin:
            raise ForbiddenError("The key is in CONVOY_API_KEYS; this request needs one of CONVOY_ADMIN_KEYS.")


def _keys(headers: Headers) -> list[str]:
    """Every credential of the request: one may be a gateway's own, and not for this service."""
    bearer = [
        token.strip()
        for scheme, _, token in (value.strip().partition(" ") for value in headers.getlist("authorization"))
        if scheme.lower() == "bearer"
    ]
    return [key for key in (*bearer, *(value.strip() for value in headers.getlist("x-api-key"))) if key]


def _check_local(request: Request) -> None:
    """Raises ForbiddenError unless the client is on this machine and is not a web page of another site.

    A browser on this machine names that site in Origin; or in Host, if the site's name resolves to this machine.
    """
    rule = "Without an admin key, only clients on the service's own machine may make this request"
    advice = "The operator sets admin keys with CONVOY_ADMIN_KEYS."
    headers = request.headers
    if request.client is None:
        raise ForbiddenError(f"Over a Unix socket, which a proxy may use, this request needs an admin key. {advice}")
    if not is_loopback(request.client.host):
        raise ForbiddenError(f"{rule}. {advice}")
    forwarded = next((name for name in headers if name in _FORWARDED or name.startswith("x-forwarded-")), None)
    if forwarded:
        raise ForbiddenError(f"{rule}, but its header {forwarded} shows that a proxy forwarded it. {advice}")
    host, origin = headers.get("host", ""), headers.get("origin")
    if not is_loopback(_hostname(host)):
        raise ForbiddenError(f"{rule}. Use the host 127.0.0.1 or localhost, not '{shortened(host)}'.")
    if origin is not None and origin.partition("://")[2] != host:
        raise ForbiddenError(f"{rule}, and web pages of '{shortened(origin)}' may not. {advice}")


def _hostname(host: str) -> str:
    """Returns the name or address in a Host header (RFC 9110, section 7.2), or "" if it is malformed."""
    parts = _HOST.fullmatch(host)
    return (parts["name"] or parts["address"]).lower() if parts else ""
