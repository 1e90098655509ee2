"""POST /models/{name}/promote: the version that serves from now on, also after a restart."""

import math

from fastapi import APIRouter, Request
from pydantic import ValidationError

from schemas.promotion import PromoteRequest, Promotion
from service.api.body import BodyMemory, read_body
from service.api.deadlines import TIMEOUT_PARAMETERS, request_context, within
from service.api.problems import problems
from service.api.routes.common import ModelName, control_of
from service.codecs.inference_protocol import invalid
from service.codecs.json import without_bom
from service.settings import Settings

_MAX_BYTES = 64 * 1024
_GOES_ON = (
    "The deadline passed before every worker had applied the promotion. It goes on; GET /models shows the result."
)


def router(settings: Settings, memory: BodyMemory) -> APIRouter:
    routes = APIRouter(tags=["models"])

    @routes.post(
        "/models/{name}/promote",
        summary="Promote a version of a model, or roll back to one",
        description="Loads and verifies the version in all workers, records it in the model's promoted.json, and "
        "serves it. The record survives a restart. 409 if the file cannot be written, or CONVOY_VERSIONS is not "
        "`promoted`.",
        response_description="The record. Every worker serves the version.",
        responses=problems(400, 401, 403, 404, 409, 413, 422, 503, 504),
        openapi_extra={
            "parameters": TIMEOUT_PARAMETERS,
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PromoteRequest"}}},
            },
        },
    )
    async def promote(request: Request, name: ModelName) -> Promotion:
        deadline = request_context(request, math.inf).deadline
        with memory.hold() as held:
            body = await read_body(
                request, held, _MAX_BYTES, request_context(request, settings.request_timeout).deadline
            )
        try:
            version = PromoteRequest.model_validate_json(without_bom(body)).version
        except ValidationError as error:
            raise invalid(error) from error
        return await within(deadline, control_of(request).promote(name, version), _GOES_ON)

    return routes
