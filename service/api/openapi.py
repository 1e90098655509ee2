"""Completes FastAPI's OpenAPI schema with the bodies that codecs/ reads and the errors that problems.py writes."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from schemas.evaluation import EvaluateRequest
from schemas.inference_protocol import ErrorMessage, IndexRequest, InferRequest, LoadRequest, UnloadRequest
from schemas.prediction import PredictRequest
from schemas.problem import Problem
from schemas.promotion import PromoteRequest
from service.api.auth import Access, required_access
from service.api.problems import errors_below

DESCRIPTION = """\
Image classifiers over HTTP. A model serves only if it has reproduced its golden samples.

Send images as JSON, as a form, as one image file or as a NumPy array; the service resizes them to the model's input.
/evaluate also accepts labelled images as a zip of class-named folders or as an .npz file.
Every error is a problem document (RFC 9457). Its `detail` states the error and its remedy in one sentence.
"""

_MESSAGES = (
    PredictRequest,
    EvaluateRequest,
    Problem,
    ErrorMessage,
    PromoteRequest,
    InferRequest,
    IndexRequest,
    LoadRequest,
    UnloadRequest,
)
# FastAPI's model of a 422, which Problem replaces.
_UNUSED = ("HTTPValidationError", "ValidationError")
# {}: the operator decides whether keys are needed.
_KEYS: list[dict[str, list[str]]] = [{}, {"bearer": []}, {"apiKey": []}]
_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key of CONVOY_API_KEYS or CONVOY_ADMIN_KEYS."},
    "apiKey": {
        "type": "apiKey",
        "in": "header",
        "name": "X-API-Key",
        "description": "The same key in another header.",
    },
}
_REF = "#/components/schemas/{model}"


def describe(app: FastAPI, root_path: str = "") -> None:
    """Replaces app.openapi(). Of the settings, the schema depends only on the root path."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _schema(app) | ({"servers": [{"url": root_path}]} if root_path else {})
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI documents


def _schema(app: FastAPI) -> dict[str, Any]:
    schema = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
    _, messages = models_json_schema([(message, "validation") for message in _MESSAGES], ref_template=_REF)
    schemas = schema["components"]["schemas"] | messages["$defs"]
    for path, operations in schema["paths"].items():
        for method, operation in operations.items():
            if "application/json" in operation["responses"].get("422", {}).get("content", {}):
                del operation["responses"]["422"]  # FastAPI's own, for a path parameter that accepts any text
            _add_keys(path, operation, required_access(method.upper(), path))
    schema["components"]["securitySchemes"] = _SCHEMES
    for name in _UNUSED:
        schemas.pop(name, None)
    schema["components"]["schemas"] = dict(sorted(schemas.items()))
    return schema


def _add_keys(path: str, operation: dict[str, Any], needed: Access) -> None:
    if needed is Access.PUBLIC:
        return
    operation["security"] = _KEYS
    statuses = (401, 403) if needed is Access.ADMIN else (401,)
    described = {str(status): response for status, response in errors_below(path, *statuses).items()}
    operation["responses"] = dict(sorted((described | operation["responses"]).items()))
