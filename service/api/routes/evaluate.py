"""POST /evaluate: labelled images -> accuracy, precision, recall, F1, confusion matrix, log loss, calibration."""

import asyncio
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from schemas.base import Frozen
from schemas.evaluation import EvaluationReport
from schemas.model_comparison import EvaluationComparison
from schemas.prediction import OnError
from service.api.flow import Handler, InferenceFlow, json_response
from service.api.parameters import read_query
from service.api.routes.common import ON_ERROR, described, submission_parser
from service.codecs.base import Purpose, Submission
from service.errors import InvalidRequestError
from service.inference.evaluation import check_comparable, compare
from service.inference.model import Model
from service.inference.request_context import RequestContext
from service.telemetry.timings import Timings

_DESCRIPTION = "The metrics, with the variant and provider that answered"


class EvaluateQuery(Frozen):
    """The options. JSON bodies and forms may carry them instead."""

    on_error: Annotated[OnError | None, Field(description=ON_ERROR)] = None
    reject: Annotated[
        bool | None, Field(description="also report coverage and accuracy at the model's confidence threshold")
    ] = None


_VERSIONS = r"^[1-9][0-9]{0,17},[1-9][0-9]{0,17}$"


def _are_two(versions: str) -> str:
    if not re.fullmatch(_VERSIONS, versions):
        raise PydanticCustomError(
            "versions",
            "Name two versions to compare, as in versions=2,3; for one, use /models/NAME/versions/2/evaluate",
        )
    return versions


class CompareQuery(EvaluateQuery):
    versions: Annotated[
        Annotated[str, AfterValidator(_are_two), Field(json_schema_extra={"pattern": _VERSIONS})] | None,
        Field(
            description="two versions, as in `2,3`, to evaluate on these images and to compare; both must serve "
            "(CONVOY_VERSIONS=all)",
            examples=["2,3"],
        ),
    ] = None


def router(flow: InferenceFlow) -> APIRouter:
    routes = APIRouter()
    for name, path, summary in (
        ("evaluate", "/evaluate", "Evaluate the default model on labelled images, or compare two of its versions"),
        ("evaluate_with", "/models/{name}/evaluate", "Evaluate a model on labelled images, or compare two versions"),
    ):
        description = f"{_DESCRIPTION}; with `versions`, both reports and a significance test."
        response = EvaluationReport | EvaluationComparison
        about = described(path, Purpose.EVALUATE, CompareQuery, response, description)
        routes.add_api_route(endpoint=_handler(flow, CompareQuery), name=name, summary=summary, **about)
    path = "/models/{name}/versions/{version}/evaluate"
    about = described(path, Purpose.EVALUATE, EvaluateQuery, EvaluationReport, f"{_DESCRIPTION}.")
    summary = "Evaluate a version on labelled images"
    routes.add_api_route(endpoint=_handler(flow, EvaluateQuery), name="evaluate_with_version", summary=summary, **about)
    return routes


def _handler(flow: InferenceFlow, query_type: type[EvaluateQuery]) -> Handler:
    run = partial(flow, inline_bytes=0)  # a small archive can be large when it is unpacked

    async def evaluate(request: Request) -> Response:
        query, timeout = read_query(request, query_type), flow.settings.evaluate_timeout

        def parser(_: object) -> Callable[[bytes], Submission]:
            return submission_parser(request, Purpose.EVALUATE, query, flow.settings)

        if isinstance(query, CompareQuery) and query.versions:
            return await run(request, timeout, _lease_two(flow, request, query.versions), parser, _compare)
        return await run(request, timeout, flow.lease(request), parser, _evaluate)

    return evaluate


@contextmanager
def _lease_two(flow: InferenceFlow, request: Request, versions: str) -> Iterator[tuple[Model, Model]]:
    first, second = map(int, versions.split(","))
    if first == second:
        raise InvalidRequestError(f"versions names version {first} twice; name two versions to compare.")
    with flow.lease(request, first) as a, flow.lease(request, second) as b:
        yield a, b


async def _evaluate(model: Model, submission: Submission, context: RequestContext) -> Response:
    images, reject = submission.images, bool(submission.reject)
    report = await model.evaluate(images, submission.labels, submission.on_error, reject=reject, context=context)
    return await json_response(report.model_dump_json, len(images))


async def _compare(models: tuple[Model, Model], submission: Submission, context: RequestContext) -> Response:
    if submission.reject:
        raise InvalidRequestError("reject applies to one version; remove it, or remove versions.")
    check_comparable(models[0].manifest, models[1].manifest, submission.labels)
    scores = []
    for model in models:
        own = replace(context, timings=Timings())  # each version's statistics count its own time
        scores.append(await model.score(submission.images, submission.labels, submission.on_error, context=own))
        context.timings.add(own.timings)
    comparison = await asyncio.to_thread(compare, *scores)
    return await json_response(comparison.model_dump_json, len(submission.images))
