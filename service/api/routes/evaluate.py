"""POST /evaluate: labelled images -> accuracy, precision, recall, F1, confusion matrix, log loss, calibration."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

from fastapi import APIRouter, Request, Response
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from schemas.base import Frozen
from schemas.evaluation import EvaluationReport
from schemas.model_comparison import EvaluationComparison
from schemas.prediction import OnError
from service.api.body import read_submission
from service.api.deadlines import call_of, while_connected
from service.api.parameters import read_query
from service.api.routes.common import ON_ERROR, ModelName, Version, agreed, answer, described
from service.codecs.base import Purpose, Submission
from service.errors import InvalidRequestError
from service.inference.evaluation import Scores, check_comparable, compare
from service.inference.model import Model
from service.inference.request_context import RequestContext
from service.repository.registry import Registry
from service.settings import Settings
from service.telemetry.timings import Timings


class EvaluateQuery(Frozen):
    """The options, which JSON bodies and forms may carry instead."""

    on_error: Annotated[OnError | None, Field(description=ON_ERROR)] = None
    reject: Annotated[
        bool | None, Field(description="report coverage and accuracy with the model's reject threshold too")
    ] = None


_VERSIONS = r"^[1-9][0-9]{0,17},[1-9][0-9]{0,17}$"


def _are_two(versions: str) -> str:
    if not re.fullmatch(_VERSIONS, versions):
        raise PydanticCustomError(
            "versions", "Name two versions to compare, as in versions=2,3; for one ask /models/NAME/versions/2/evaluate"
        )
    return versions


class CompareQuery(EvaluateQuery):
    versions: Annotated[
        Annotated[str, AfterValidator(_are_two), Field(json_schema_extra={"pattern": _VERSIONS})] | None,
        Field(
            description="two versions, as in `2,3`: both are measured on these images and compared with each other; "
            "both must serve (CONVOY_VERSIONS=all)",
            examples=["2,3"],
        ),
    ] = None


def router(registry: Registry, settings: Settings) -> APIRouter:
    routes = APIRouter()
    said = "The figures, with the variant and provider that answered"
    about_one = described(Purpose.EVALUATE, EvaluateQuery, EvaluationReport, f"{said}.")
    about = described(
        Purpose.EVALUATE,
        CompareQuery,
        EvaluationReport | EvaluationComparison,
        f"{said}; with `versions` those of both, and whether their difference is more than chance.",
    )

    async def run(
        request: Request,
        query: EvaluateQuery,
        call: RequestContext,
        name: str | None = None,
        version: int | None = None,
    ) -> Response:
        with registry.lease(name, version) as model:
            submission = await read_submission(request, Purpose.EVALUATE, settings, call.deadline)
            on_error = agreed("on_error", query.on_error, submission.on_error)
            reject = bool(agreed("reject", query.reject, submission.reject))
            evaluating = model.evaluate(submission.images, submission.labels, on_error, reject=reject, context=call)
            report = await while_connected(request, evaluating)
            return await answer(report.model_dump_json, len(submission.images))

    async def run_two(
        request: Request, query: EvaluateQuery, call: RequestContext, name: str | None, versions: str
    ) -> Response:
        first, second = map(int, versions.split(","))
        if first == second:
            raise InvalidRequestError(f"versions names version {first} twice; name two versions to compare.")
        with registry.lease(name, first) as a, registry.lease(name, second) as b:
            submission = await read_submission(request, Purpose.EVALUATE, settings, call.deadline)
            on_error = agreed("on_error", query.on_error, submission.on_error)
            if agreed("reject", query.reject, submission.reject):
                raise InvalidRequestError("reject is for one version; leave it out, or ask without versions.")
            check_comparable(a.manifest, b.manifest, submission.labels)
            scores = await while_connected(request, _score((a, b), submission, on_error, call))
            comparison = await asyncio.to_thread(compare, *scores)
            return await answer(comparison.model_dump_json, len(submission.images))

    async def choose(request: Request, name: str | None = None) -> Response:
        call, query = call_of(request, settings.evaluate_timeout), read_query(request, CompareQuery)
        if query.versions is None:
            return await run(request, query, call, name)
        return await run_two(request, query, call, name, query.versions)

    @routes.post("/evaluate", summary="Measure the default model on labelled images, or two versions of it", **about)
    async def evaluate(request: Request) -> Response:
        return await choose(request)

    @routes.post(
        "/models/{name}/evaluate", summary="Measure a model on labelled images, or two versions of it", **about
    )
    async def evaluate_with(request: Request, name: ModelName) -> Response:
        return await choose(request, name)

    @routes.post(
        "/models/{name}/versions/{version}/evaluate", summary="Measure a version on labelled images", **about_one
    )
    async def evaluate_with_version(request: Request, name: ModelName, version: Version) -> Response:
        call, query = call_of(request, settings.evaluate_timeout), read_query(request, EvaluateQuery)
        return await run(request, query, call, name, version)

    return routes


async def _score(
    models: Sequence[Model], submission: Submission, on_error: OnError | None, call: RequestContext
) -> Sequence[Scores]:
    scores = []
    for model in models:  # each with its own time, for its own statistics
        own = replace(call, timings=Timings())
        scores.append(await model.score(submission.images, submission.labels, on_error, context=own))
        call.timings.add(own.timings)
    return scores
