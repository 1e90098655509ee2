"""KServe's v1 protocol, which is TensorFlow Serving's: the same instances and predictions as /predict, in JSON alone.

Every error below /v1 is {"error": "..."}, which service/api/problems.py sees to.
"""

from typing import Annotated, Any

from fastapi import APIRouter, Request, Response
from pydantic import Field
from pydantic_core import to_json

from schemas.base import Frozen
from schemas.prediction import FailedPrediction, Prediction, RejectedPrediction
from service.api.body import read_as
from service.api.deadlines import CALL_PARAMETERS, call_of, while_connected
from service.api.parameters import parameters, read_query
from service.api.problems import protocol_errors
from service.api.routes.common import ModelName, agreed, answer
from service.api.routes.predict import PredictQuery
from service.codecs.base import Purpose
from service.codecs.json import JSON
from service.repository.registry import Registry
from service.settings import Settings


class Predictions(Frozen):
    predictions: Annotated[
        tuple[Prediction | RejectedPrediction | FailedPrediction, ...],
        Field(description="one an instance, in the order they were sent"),
    ]


class ModelNames(Frozen):
    models: Annotated[tuple[str, ...], Field(description="all that are there, also those that do not serve")]


class Readiness(Frozen):
    name: str
    ready: bool = True


_REQUEST: dict[str, Any] = {
    "parameters": [*parameters(PredictQuery, "query"), *CALL_PARAMETERS],
    "requestBody": {"required": True, "content": {"application/json": JSON.openapi[Purpose.PREDICT]}},
}


def router(registry: Registry, settings: Settings) -> APIRouter:
    routes = APIRouter(prefix="/v1/models", tags=["KServe v1"], responses=protocol_errors(405, 500))

    @routes.get("", summary="List the models by name")
    async def models() -> ModelNames:
        return ModelNames(models=tuple(dict.fromkeys(entry.ref.name for entry in registry.entries)))

    # Ahead of the next, whose name would take in the colon: the methods of this path are its own.
    @routes.post(
        "/{name}:predict",
        summary="Classify images with a model",
        response_model=Predictions,
        response_description="One prediction an instance, in the order they were sent.",
        responses=protocol_errors(400, 404, 413, 415, 503, 504),
        openapi_extra=_REQUEST,
    )
    async def predict(request: Request, name: ModelName) -> Response:
        call, query = call_of(request, settings.request_timeout), read_query(request, PredictQuery)
        # Content-Type is not looked at: clients of this protocol send whatever their library chose.
        submission = await read_as(JSON, request, Purpose.PREDICT, settings, call.deadline)
        top_k = agreed("top_k", query.top_k, submission.top_k)
        on_error = agreed("on_error", query.on_error, submission.on_error)
        reject = bool(agreed("reject", query.reject, submission.reject))
        with registry.lease(name) as model:
            predicting = model.predict(submission.images, top_k, on_error, reject=reject, context=call)
            answers = await while_connected(request, predicting)
        return await answer(lambda: to_json({"predictions": answers.to_list()}), len(submission.images))

    @routes.get("/{name}", summary="Does the model serve?", responses=protocol_errors(404, 503))
    async def ready(name: ModelName) -> Readiness:
        with registry.lease(name):
            return Readiness(name=name)

    return routes
