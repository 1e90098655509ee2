"""The page at / and the documentation. They load nothing from other hosts, which their policies enforce."""

from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

from service.api.routes.files import WholeFileResponse

STATIC = Path(__file__).parent.parent / "static"

# The page has no inline script or style. The documentation's scripts write inline styles. ReDoc runs a blob.
_PAGE_POLICY = "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'; base-uri 'none'"
_DOCS_POLICY = (
    "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; worker-src 'self' blob:; "
    "frame-ancestors 'none'; base-uri 'none'"
)


def add_pages(app: FastAPI) -> None:
    app.include_router(_router())
    # The scripts and styles of Swagger UI and ReDoc, which fastapi-offline contains.
    app.mount("/static/docs", StaticFiles(directory=Path(str(files("fastapi_offline") / "static"))))
    app.mount("/static", StaticFiles(directory=STATIC))


def _router() -> APIRouter:
    routes = APIRouter(include_in_schema=False)

    @routes.get("/")
    async def page() -> WholeFileResponse:
        return _html("index.html", _PAGE_POLICY)

    @routes.get("/docs")
    async def docs() -> WholeFileResponse:
        return _html("docs.html", _DOCS_POLICY)

    @routes.get("/redoc")
    async def redoc() -> WholeFileResponse:
        return _html("redoc.html", _DOCS_POLICY)

    @routes.get("/docs/")
    @routes.get("/redoc/")
    async def without_slash(request: Request) -> RedirectResponse:
        """The pages' relative links need the path without the slash."""
        return RedirectResponse(f"..{request.url.path[:-1]}")

    @routes.get("/favicon.ico")
    async def favicon() -> WholeFileResponse:
        return WholeFileResponse(STATIC / "favicon.svg")

    return routes


def _html(name: str, policy: str) -> WholeFileResponse:
    headers = {"Content-Security-Policy": policy, "Cache-Control": "no-cache"}
    return WholeFileResponse(STATIC / name, headers=headers)
