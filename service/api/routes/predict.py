"""POST /predict: images -> their most probable classes."""

from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from schemas.base import Frozen
from schemas.prediction import OnError, PredictResponse
from service.api.body import read_submission
from service.api.deadlines import call_of, while_connected
from service.api.parameters import read_query
from service.api.routes.common import ON_ERROR, REJECT, ModelName, Version, agreed, answer, described
from service.codecs.base import Purpose, TopK
from service.repository.registry import Registry
from service.settings import Settings


class PredictQuery(Frozen):
    """The options, which JSON bodies and forms may carry instead."""

    top_k: Annotated[TopK | None, Field(description="how many of the most probable classes to name; 3 by default")] = (
        None
    )
    on_error: Annotated[OnError | None, Field(description=ON_ERROR)] = None
    reject: Annotated[bool | None, Field(description=REJECT)] = None


def router(registry: Registry, settings: Settings) -> APIRouter:
    routes = APIRouter()
    about = described(
        Purpose.PREDICT, PredictQuery, PredictResponse, "One prediction an image, in the order they were sent."
    )

    async def run(request: Request, name: str | None = None, version: int | None = None) -> Response:
        call, query = call_of(request, settings.request_timeout), read_query(request, PredictQuery)
        with registry.lease(name, version) as model:
            submission = await read_submission(request, Purpose.PREDICT, settings, call.deadline)
            top_k = agreed("top_k", query.top_k, submission.top_k)
            on_error = agreed("on_error", query.on_error, submission.on_error)
            reject = bool(agreed("reject", query.reject, submission.reject))
            predicting = model.predict(submission.images, top_k, on_error, reject=reject, context=call)
            predictions = await while_connected(request, predicting)
            return await answer(predictions.to_json, len(submission.images))

    @routes.post("/predict", summary="Classify images with the default model", **about)
    async def predict(request: Request) -> Response:
        return await run(request)

    @routes.post("/models/{name}/predict", summary="Classify images with a model", **about)
    async def predict_with(request: Request, name: ModelName) -> Response:
        return await run(request, name)

    @routes.post("/models/{name}/versions/{version}/predict", summary="Classify images with a version", **about)
    async def predict_with_version(request: Request, name: ModelName, version: Version) -> Response:
        return await run(request, name, version)

    return routes
