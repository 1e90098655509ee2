"""POST /models/{name}/promote: the version that serves from now on, also after a restart."""

import math

from fastapi import APIRouter, Request

from schemas.promotion import PromoteRequest, Promotion
from service.api.body import BodyMemory
from service.api.deadlines import TIMEOUT_PARAMETERS, request_context, within
from service.api.problems import problems
from service.api.routes.common import CONTINUES, ModelName, control_of, read_message
from service.settings import Settings


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
        version = (await read_message(request, PromoteRequest, settings, memory)).version
        return await within(deadline, control_of(request).promote(name, version), CONTINUES)

    return routes
