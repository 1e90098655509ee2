"""POST /evaluate: labelled images -> accuracy, precision, recall, F1, confusion matrix, log loss, calibration."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from schemas.base import Frozen
from schemas.evaluation import EvaluationReport
from schemas.prediction import OnError
from service.bodies.reading import read_submission
from service.bodies.submission import Purpose
from service.call import Call
from service.registry import Registry
from service.routes.asking import ON_ERROR, ModelName, Version, agreed, answer, described
from service.routes.calls import calls, while_connected
from service.settings import Settings


class EvaluateQuery(Frozen):
    """The options, which JSON bodies and forms may carry instead."""

    on_error: Annotated[OnError | None, Field(description=ON_ERROR)] = None
    reject: Annotated[
        bool | None, Field(description="report coverage and accuracy with the model's reject threshold too")
    ] = None


Options = Annotated[EvaluateQuery, Query()]


def router(registry: Registry, settings: Settings) -> APIRouter:
    routes = APIRouter()
    about = described(Purpose.EVALUATE, EvaluationReport, "The figures, with the variant and provider that answered.")

    Asked = Annotated[Call, Depends(calls(settings.evaluate_timeout))]  # noqa: N806 - a type

    async def run(
        request: Request, query: EvaluateQuery, call: Call, name: str | None = None, version: int | None = None
    ) -> Response:
        model = registry.model(name, version)
        submission = await read_submission(request, Purpose.EVALUATE, settings, call.deadline)
        on_error = agreed("on_error", query.on_error, submission.on_error)
        reject = bool(agreed("reject", query.reject, submission.reject))
        evaluating = model.evaluate(submission.images, submission.labels, on_error, reject=reject, call=call)
        report = await while_connected(request, evaluating)
        return await answer(report, len(submission.images))

    @routes.post("/evaluate", summary="Measure the default model on labelled images", **about)
    async def evaluate(request: Request, query: Options, call: Asked) -> Response:
        return await run(request, query, call)

    @routes.post("/models/{name}/evaluate", summary="Measure a model on labelled images", **about)
    async def evaluate_with(request: Request, query: Options, call: Asked, name: ModelName) -> Response:
        return await run(request, query, call, name)

    @routes.post("/models/{name}/versions/{version}/evaluate", summary="Measure a version on labelled images", **about)
    async def evaluate_with_version(
        request: Request, query: Options, call: Asked, name: ModelName, version: Version
    ) -> Response:
        return await run(request, query, call, name, version)

    return routes
