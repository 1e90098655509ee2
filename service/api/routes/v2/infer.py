"""POST /v2/models/{name}/infer: tensors or encoded images in, probabilities or classes out."""

import time
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Header, Request, Response
from starlette.concurrency import run_in_threadpool

from schemas.inference_protocol import BINARY_HEADER, InferResponse, RequestParameters
from service.api.body import INLINE_BYTES, read_body
from service.api.deadlines import CALL_PARAMETERS, call_of, while_connected
from service.api.problems import protocol_errors
from service.api.routes.common import INLINE_IMAGES, ModelName, Version
from service.codecs.examples import PNG_BASE64
from service.codecs.inference_protocol import read_infer, write_infer
from service.inference.request_context import RequestContext
from service.repository.registry import Registry
from service.settings import Settings

_BINARY: dict[str, Any] = {
    "schema": {
        "type": "string",
        "format": "binary",
        "description": f"The JSON, as long as {BINARY_HEADER} says, and right behind it the binary tensors.",
    }
}
_EXAMPLES = {
    "encoded image": {
        "summary": "An image file in base64",
        "value": {"inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "data": [PNG_BASE64]}]},
    },
    "classes": {
        "summary": "The most probable class by name",
        "value": {
            "id": "42",
            "inputs": [{"name": "images", "shape": [1], "datatype": "BYTES", "data": [PNG_BASE64]}],
            "outputs": [{"name": "probabilities", "parameters": {"classification": 1}}],
        },
    },
}
_ABOUT: dict[str, Any] = {
    "response_model": InferResponse,
    "response_model_exclude_none": True,
    "response_description": "The outputs. As binary data where that was asked for.",
    "responses": {
        200: {"content": {"application/octet-stream": _BINARY}},
        **protocol_errors(400, 404, 405, 413, 415, 500, 501, 503, 504),
    },
    "openapi_extra": {
        "parameters": CALL_PARAMETERS,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}, "examples": _EXAMPLES},
                "application/octet-stream": _BINARY,
            },
        },
    },
}

JsonLength = Annotated[
    str | None,
    Header(
        alias=BINARY_HEADER,
        description="bytes of JSON at the body's start, uncompressed; 0: the body is the tensor of one image; "
        "not there: all is JSON",
    ),
]


def router(registry: Registry, settings: Settings) -> APIRouter:
    routes = APIRouter()

    async def run(request: Request, header: str | None, name: str, version: int | None = None) -> Response:
        call = call_of(request, settings.request_timeout)
        body = await read_body(request, settings.max_body_bytes, call.deadline)
        with registry.lease(name, version) as model:
            read = partial(read_infer, body, header, model.manifest, settings)
            asked, images = read() if len(body) <= INLINE_BYTES else await run_in_threadpool(read)
            answers = await while_connected(request, model.infer(images, _within(call, asked.parameters)))
            write = partial(write_infer, asked, answers, model.manifest)
            encoded = write() if len(images) <= INLINE_IMAGES else await run_in_threadpool(write)
        return Response(encoded.body, headers=dict(encoded.headers))

    @routes.post("/models/{name}/infer", summary="Classify images with a model", **_ABOUT)
    async def infer(request: Request, name: ModelName, header: JsonLength = None) -> Response:
        return await run(request, header, name)

    @routes.post("/models/{name}/versions/{version}/infer", summary="Classify images with a version", **_ABOUT)
    async def infer_version(request: Request, name: ModelName, version: Version, header: JsonLength = None) -> Response:
        return await run(request, header, name, version)

    return routes


def _within(call: RequestContext, parameters: RequestParameters) -> RequestContext:
    """The protocol's timeout counts from here, and can only shorten."""
    if not parameters.timeout:
        return call
    return replace(call, deadline=min(call.deadline, time.monotonic() + parameters.timeout / 1e6))
