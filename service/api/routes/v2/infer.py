"""POST /v2/models/{name}/infer: tensors or encoded images -> probabilities or classes."""

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field

from schemas.base import Frozen
from schemas.bundle import MAP_NAME
from schemas.inference_protocol import BINARY_HEADER, InferRequest, InferResponse, RequestParameters
from service.api.body import run_off_loop
from service.api.deadlines import TIMEOUT_PARAMETERS
from service.api.flow import INLINE_IMAGES, Handler, InferenceFlow, path_parameters
from service.api.parameters import parameters
from service.api.problems import protocol_errors
from service.codecs.examples import PNG_BASE64
from service.codecs.inference_protocol import PROBABILITIES, read_infer, write_infer
from service.inference.inputs import Image
from service.inference.model import Model
from service.inference.request_context import RequestContext

Parsed = tuple[InferRequest, list[Image]]

_BINARY: dict[str, Any] = {
    "schema": {
        "type": "string",
        "format": "binary",
        "description": f"JSON of the length that {BINARY_HEADER} announces, followed by the binary tensors.",
    }
}


class _Headers(Frozen):
    json_length: Annotated[
        str | None,
        Field(
            alias=BINARY_HEADER,
            description="the number of bytes of JSON at the start of the uncompressed body; 0: the body is the tensor "
            "of one image; absent: the whole body is JSON",
        ),
    ] = None


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
_CONTENT = {
    "application/json": {"schema": {"$ref": "#/components/schemas/InferRequest"}, "examples": _EXAMPLES},
    "application/octet-stream": _BINARY,
}


def router(flow: InferenceFlow) -> APIRouter:
    routes = APIRouter()
    for name, path, summary in (
        ("infer", "/models/{name}/infer", "Classify images with a model"),
        ("infer_version", "/models/{name}/versions/{version}/infer", "Classify images with a version"),
    ):
        routes.add_api_route(
            path,
            infer_handler(flow),
            methods=["POST"],
            name=name,
            summary=summary,
            response_model=InferResponse,
            response_model_exclude_none=True,
            response_description="The outputs, as binary data if the request asks for it.",
            responses={
                200: {"content": {"application/octet-stream": _BINARY}},
                **protocol_errors(400, 404, 405, 413, 415, 500, 501, 503, 504),
            },
            openapi_extra={
                "parameters": [*path_parameters(path), *parameters(_Headers, "header"), *TIMEOUT_PARAMETERS],
                "requestBody": {"required": True, "content": _CONTENT},
            },
        )
    return routes


def infer_handler(flow: InferenceFlow) -> Handler:
    async def infer(request: Request) -> Response:
        header = request.headers.get(BINARY_HEADER)

        def parser(model: Model) -> Callable[[bytes], Parsed]:
            return partial(read_infer, header=header, manifest=model.manifest, settings=flow.settings)

        return await flow(request, flow.settings.request_timeout, flow.lease(request), parser, _respond)

    return infer


async def _respond(model: Model, parsed: Parsed, context: RequestContext) -> Response:
    request, images = parsed
    context = _with_timeout(context, request.parameters)
    if any(output.name == MAP_NAME for output in request.outputs):
        tensors = dict(zip((PROBABILITIES, MAP_NAME), await model.infer_with_maps(images, context), strict=True))
    else:
        tensors = {PROBABILITIES: await model.infer(images, context)}
    large = len(images) > INLINE_IMAGES
    body, headers = await run_off_loop(large, write_infer, request, tensors, model.manifest)
    return Response(body, headers=headers)


def _with_timeout(context: RequestContext, parameters: RequestParameters) -> RequestContext:
    """Applies the protocol's timeout in microseconds, which counts from here and can only shorten the deadline."""
    if not parameters.timeout:
        return context
    return replace(context, deadline=min(context.deadline, time.monotonic() + parameters.timeout / 1e6))
