"""Who may ask for what: the whole of it is in this file. docs/decisions/0013-who-may-ask.md says why.

open    anybody: health, the page, the documentation; the same for every installation. What health tells of models, by
        name, it tells those alone who may ask
asking  where CONVOY_API_KEYS is set, one of its keys or of CONVOY_ADMIN_KEYS: predictions, and all that tells of models
admin   one of CONVOY_ADMIN_KEYS; where that is not set, callers on this machine alone: whatever changes something
"""

import re
from collections.abc import Mapping
from enum import Enum, auto

from fastapi import Request

from service.api.route_template import route_template
from service.api_keys import Keys
from service.errors import ForbiddenError, UnauthorizedError
from service.settings import Settings, is_loopback
from service.validation import shortened


class Access(Enum):
    OPEN = auto()
    ASKING = auto()
    ADMIN = auto()


# Route templates, each parameter as *.
_OPEN = {"/", "/docs", "/redoc", "/favicon.ico", "/livez", "/readyz", "/v2/health/live", "/v2/health/ready"}
_ASKING_BY_POST = {
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

# What proxies add, beside all that begins with x-forwarded-.
_FORWARDED = {"cf-connecting-ip", "forwarded", "true-client-ip", "via", "x-client-ip", "x-real-ip"}
_HOST = re.compile(r"(\[(?P<address>[0-9a-f:.]+)\]|(?P<name>[\w.-]+))(:\d*)?", re.ASCII | re.IGNORECASE)


def access(method: str, template: str) -> Access:
    """What is in no list is closed: for a GET that is asking, for all else admin."""
    path = re.sub(r"\{[^}]*\}", "*", template)
    if method in {"GET", "HEAD"}:
        return Access.OPEN if path in _OPEN else Access.ASKING
    return Access.ASKING if method == "POST" and path in _ASKING_BY_POST else Access.ADMIN


class Guard:
    """A dependency of every route: it runs once the route is known, and before anything of the body is read."""

    def __init__(self, settings: Settings) -> None:
        self._asking = Keys(settings.api_keys)
        self._admin = Keys(settings.admin_keys)

    async def __call__(self, request: Request) -> None:
        """Raises UnauthorizedError or ForbiddenError."""
        wanted = access(request.method, route_template(request.scope))
        if wanted is Access.ASKING and self._asking:
            self._check_key(request, admin=False)
        elif wanted is Access.ADMIN and self._admin:
            self._check_key(request, admin=True)
        elif wanted is Access.ADMIN:
            _check_local(request)

    def may_ask(self, request: Request) -> bool:
        """Whether the caller may be told of models, where a route is open to those too who may not."""
        if not self._asking:
            return True
        key = _key(request.headers)
        return key is not None and (key in self._admin or key in self._asking)

    def _check_key(self, request: Request, *, admin: bool) -> None:
        key = _key(request.headers)
        if key is None:
            raise UnauthorizedError("This needs a key; send it as Authorization: Bearer KEY, or as X-API-Key: KEY.")
        if key in self._admin:
            return
        if key not in self._asking:
            raise UnauthorizedError("The key is none that this service knows; ask whoever runs it for one.")
        if admin:
            raise ForbiddenError("The key is for predictions; this needs one of CONVOY_ADMIN_KEYS.")


def _key(headers: Mapping[str, str]) -> str | None:
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        return credentials.strip()
    return headers.get("x-api-key")


def _check_local(request: Request) -> None:
    """The caller is on this machine, and is no page of somebody else's in a browser on it.

    Such a page says where it is from (Origin), also where its name was made to lead here (Host).
    """
    said = "Without CONVOY_ADMIN_KEYS this is open to callers on the service's own machine alone"
    headers = request.headers
    if request.client is None or not is_loopback(request.client.host):
        raise ForbiddenError(f"{said}; set it, and send one of its keys.")
    forwarded = next((name for name in headers if name in _FORWARDED or name.startswith("x-forwarded-")), None)
    if forwarded:
        raise ForbiddenError(f"{said}, and the header {forwarded} says that this came from elsewhere; set it.")
    host, origin = headers.get("host", ""), headers.get("origin")
    if not is_loopback(_hostname(host)):
        raise ForbiddenError(f"{said}, under its own name: ask 127.0.0.1 or localhost, not '{shortened(host)}'.")
    if origin is not None and origin.partition("://")[2] != host:
        raise ForbiddenError(f"{said}, and not to a page of '{shortened(origin)}'.")


def _hostname(host: str) -> str:
    """Of a Host header (RFC 9110, section 7.2); empty where it is anything else."""
    parts = _HOST.fullmatch(host)
    return (parts["name"] or parts["address"]).lower() if parts else ""
