"""POST /predict: images -> their most probable classes."""

import sys
from collections.abc import Callable
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import Field

from schemas.base import Frozen
from schemas.prediction import OnError, PredictResponse
from service.api.flow import Handler, InferenceFlow, json_response
from service.api.parameters import read_query
from service.api.routes.common import EXPLAIN, ON_ERROR, REJECT, Parse, described, submission_parser
from service.codecs.base import BodyFormat, Purpose, Submission, TopK
from service.inference.model import Model
from service.inference.predictions import Predictions
from service.inference.request_context import RequestContext


class PredictQuery(Frozen):
    """The options. JSON bodies and forms may carry them instead."""

    top_k: Annotated[TopK | None, Field(description="number of most probable classes to return; 3 by default")] = None
    on_error: Annotated[OnError | None, Field(description=ON_ERROR)] = None
    reject: Annotated[bool | None, Field(description=REJECT)] = None
    explain: Annotated[bool | None, Field(description=EXPLAIN)] = None


def router(flow: InferenceFlow) -> APIRouter:
    routes = APIRouter()
    handler = predict_handler(flow)
    for name, path, summary in (
        ("predict", "/predict", "Classify images with the default model"),
        ("predict_with", "/models/{name}/predict", "Classify images with a model"),
        ("predict_with_version", "/models/{name}/versions/{version}/predict", "Classify images with a version"),
    ):
        description = "One prediction per image, in the order of the images."
        about = described(path, Purpose.PREDICT, PredictQuery, PredictResponse, description)
        routes.add_api_route(endpoint=handler, name=name, summary=summary, **about)
    return routes


def predict_handler(
    flow: InferenceFlow,
    render: Callable[[Predictions], bytes] = Predictions.to_json,
    body_format: BodyFormat | None = None,
) -> Handler:
    """Returns the handler of a predict route. render makes the JSON of its response."""

    async def respond(model: Model, submission: Submission, context: RequestContext) -> Response:
        images, reject, explain = submission.images, bool(submission.reject), bool(submission.explain)
        predictions = await model.predict(
            images, submission.top_k, submission.on_error, reject=reject, explain=explain, context=context
        )
        # Drawing one map takes longer than rendering many predictions.
        return await json_response(partial(render, predictions), sys.maxsize if explain else len(images))

    async def predict(request: Request) -> Response:
        query = read_query(request, PredictQuery)

        def parser(_: Model) -> Parse:
            return submission_parser(request, Purpose.PREDICT, query, flow.settings, body_format)

        return await flow(request, flow.settings.request_timeout, flow.lease(request), parser, respond)

    return predict
