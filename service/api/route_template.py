"""Which route of ours a request led to: the name under which it is counted, logged and guarded."""

from starlette.types import Scope

UNMATCHED = "unmatched"
"""Stands for whatever leads nowhere: its paths are a caller's to choose."""


def route_template(scope: Scope) -> str:
    """As in /models/{name}/predict, once the request was routed; a mounted folder is one route."""
    # Where a router was included under a prefix, only FastAPI's own note has the whole of the path.
    route = scope.get("fastapi", {}).get("effective_route_context") or scope.get("route")
    if route is not None:
        return str(route.path)
    if "app_root_path" in scope:
        return str(scope["root_path"])
    fixed = "endpoint" in scope and not scope.get("path_params")  # a plain route of Starlette's: /openapi.json
    return str(scope["path"]) if fixed else UNMATCHED
