"""The template of a request's route, under which the request is counted, logged and authorized."""

from starlette.types import Scope

UNMATCHED = "unmatched"
"""Every path without a route, since clients choose these paths."""


def route_template(scope: Scope) -> str:
    """Returns for example /models/{name}/predict, after routing. A mounted folder is one route."""
    # For a router under a prefix, only FastAPI's own entry has the whole path.
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    if route is not None:
        return str(route.path)
    if "app_root_path" in scope:
        return str(scope["root_path"])
    fixed = "endpoint" in scope and not scope.get("path_params")  # a plain Starlette route: /openapi.json
    return str(scope["path"]) if fixed else UNMATCHED
