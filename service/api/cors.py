"""Web pages of other sites: those of CONVOY_CORS_ORIGINS may call the service (Fetch standard, section 3.2)."""

from collections.abc import Collection

from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp

# Beyond those that every page may send.
_SENT = (
    "Authorization",
    "Content-Encoding",
    "Content-Type",
    "Inference-Header-Content-Length",
    "X-API-Key",
    "X-Request-ID",
    "X-Request-Timeout",
    "traceparent",
    "tracestate",
)
# Beyond those that every page may read.
_READ = ("ETag", "Inference-Header-Content-Length", "Retry-After", "Server-Timing", "WWW-Authenticate", "X-Request-ID")


def with_cors(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """Returns app with answers to preflight requests, and with headers for these origins.

    Cookies are not allowed, because the service has none. A page may call a service in a private network: its operator
    has named the page.
    """
    return CORSMiddleware(
        app,
        allow_origins=origins,
        allow_methods=("GET", "HEAD", "POST"),
        allow_headers=_SENT,
        allow_private_network=True,
        expose_headers=_READ,
    )
