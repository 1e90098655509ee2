"""KServe's v1 protocol, which is TensorFlow Serving's: the instances and predictions of /predict, in JSON only.

service/api/problems.py writes every error under /v1 as {"error": "..."}.
"""

from typing import Annotated

from fastapi import APIRouter
from pydantic import Field
from pydantic_core import to_json

from schemas.base import Frozen
from schemas.prediction import FailedPrediction, Prediction, RejectedPrediction
from service.api.deadlines import TIMEOUT_PARAMETERS
from service.api.flow import InferenceFlow, path_parameters
from service.api.parameters import parameters
from service.api.problems import protocol_errors
from service.api.routes.common import ModelName
from service.api.routes.predict import PredictQuery, predict_handler
from service.codecs.base import Purpose
from service.codecs.json import JSON
from service.inference.predictions import Predictions as ModelPredictions
from service.repository.registry import Registry


class Predictions(Frozen):
    predictions: Annotated[
        tuple[Prediction | RejectedPrediction | FailedPrediction, ...],
        Field(description="one per instance, in the order of the instances"),
    ]


class ModelNames(Frozen):
    models: Annotated[tuple[str, ...], Field(description="all models, including those that do not serve")]


class Readiness(Frozen):
    name: str
    ready: bool = True


def router(registry: Registry, flow: InferenceFlow) -> APIRouter:
    routes = APIRouter(prefix="/v1/models", tags=["KServe v1"], responses=protocol_errors(405, 500))

    @routes.get("", summary="List the models by name")
    async def models() -> ModelNames:
        return ModelNames(models=tuple(dict.fromkeys(entry.ref.name for entry in registry.entries)))

    def render(predictions: ModelPredictions) -> bytes:
        return to_json({"predictions": predictions.to_list()})

    # Before the next route, whose name would include the colon: this path has methods of its own.
    routes.add_api_route(
        "/{name}:predict",
        predict_handler(flow, render, JSON),  # whatever the Content-Type: clients send their library's default
        methods=["POST"],
        name="predict",
        summary="Classify images with a model",
        response_model=Predictions,
        response_description="One prediction per instance, in the order of the instances.",
        responses=protocol_errors(400, 404, 413, 415, 503, 504),
        openapi_extra={
            "parameters": [*path_parameters("{name}"), *parameters(PredictQuery, "query"), *TIMEOUT_PARAMETERS],
            "requestBody": {"required": True, "content": {"application/json": JSON.openapi[Purpose.PREDICT]}},
        },
    )

    @routes.get("/{name}", summary="Does the model serve?", responses=protocol_errors(404, 503))
    async def ready(name: ModelName) -> Readiness:
        with registry.lease(name):
            return Readiness(name=name)

    return routes
