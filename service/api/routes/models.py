"""GET /models: every version with its state, and the files of its report."""

from collections.abc import Iterable
from enum import StrEnum
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Field

from schemas.base import Frozen
from schemas.evaluation import WILSON, Interval
from schemas.manifest import (
    DroppedVariant,
    Explanation,
    InputSpec,
    ModelManifest,
    Provenance,
    Reject,
    SplitMetrics,
    Task,
    TemperatureScaling,
    Variant,
    VariantName,
)
from schemas.metrics import wilson_interval
from schemas.report_style import REPORT_STYLE_SOURCE
from service.api.problems import problems
from service.api.routes.common import ModelName, Version
from service.api.routes.files import WholeFileResponse
from service.errors import ReportNotFoundError
from service.inference.execution import Execution
from service.repository.candidate import Candidate, read_candidate
from service.repository.loader import Entry, Loaded
from service.repository.plan import Refused, Unloaded
from service.repository.registry import Registry
from service.repository.report import report_files
from service.validation import shortened

# A bundle may be untrusted: the browser must not run scripts in its report files, nor load anything that they refer to.
# report.html contains its pictures and its stylesheet, and links to tables, which browsers download.
_REPORT_POLICY = f"default-src 'none'; img-src data:; style-src {REPORT_STYLE_SOURCE}; sandbox allow-downloads"
_REPORT_HEADERS = {"Content-Security-Policy": _REPORT_POLICY}


_FILE: dict[str, Any] = {"response_class": WholeFileResponse, "response_description": "The file."}


class State(StrEnum):
    READY = "ready"
    REFUSED = "refused"
    UNLOADED = "unloaded"
    CANDIDATE = "candidate"  # CONVOY_VERSIONS does not select it


_STATES: dict[type[Entry], State] = {
    Loaded: State.READY,
    Refused: State.REFUSED,
    Unloaded: State.UNLOADED,
    Candidate: State.CANDIDATE,
}


class ModelSummary(Frozen):
    """A version of a model. A refused one has its reason, and the fields that its manifest still gives."""

    name: str
    version: int
    state: State
    current: Annotated[bool, Field(description="whether it answers requests without a version")]
    reason: Annotated[str | None, Field(description="why it does not serve")] = None
    task: Task | None = None
    labels: tuple[str, ...] = ()
    input: InputSpec | None = None
    explanation: Annotated[
        Explanation | None, Field(description="whether explain works; null in bundles of earlier releases")
    ] = None
    accuracy: Annotated[float | None, Field(description="of accuracy_variant on the test split")] = None
    accuracy_interval: Annotated[Interval | None, Field(description=WILSON)] = None
    accuracy_variant: Annotated[
        VariantName | None, Field(description="the variant that answers; fp32 for a version that is not loaded")
    ] = None
    test_images: Annotated[int | None, Field(description="number of images in the test split")] = None
    variant: Annotated[VariantName | None, Field(description="the variant that answers")] = None
    variant_reason: Annotated[str | None, Field(description="why it is this variant")] = None
    provider: Annotated[str | None, Field(description="the ONNX Runtime execution provider that answers")] = None
    execution: Annotated[Execution | None, Field(description="thread and batch size in this worker")] = None
    report: Annotated[
        tuple[str, ...],
        Field(description="files at /models/{name}/versions/{version}/report/{file}"),
    ] = ()


class ModelDetail(ModelSummary):
    """A version with everything from its manifest."""

    variants: tuple[Variant, ...] = ()
    dropped_variants: tuple[DroppedVariant, ...] = ()
    metrics: Annotated[SplitMetrics | None, Field(description="of the fp32 variant, whichever answers")] = None
    calibration: TemperatureScaling | None = None
    reject: Annotated[Reject | None, Field(description="the threshold that reject=true applies")] = None
    provenance: Provenance | None = None


class ModelList(Frozen):
    default: Annotated[str | None, Field(description="the model that answers /predict; null: there is no model")]
    provider: Annotated[str, Field(description="the ONNX Runtime execution provider that models run on")]
    provider_reason: Annotated[str, Field(description="why it is this provider")]
    models: tuple[ModelSummary, ...]
    candidates: Annotated[
        tuple[ModelSummary, ...],
        Field(description="versions in the artifacts folder that CONVOY_VERSIONS does not select; one can be promoted"),
    ] = ()


def router(registry: Registry) -> APIRouter:
    routes = APIRouter(tags=["models"])

    @routes.get("/models", summary="List the models")
    def models() -> ModelList:
        runtime = registry.runtime
        return ModelList(
            default=registry.default,
            provider=runtime.provider,
            provider_reason=runtime.reason,
            models=summaries(registry.entries),
            candidates=summaries(map(read_candidate, registry.candidates)),
        )

    def summaries(entries: Iterable[Entry]) -> tuple[ModelSummary, ...]:
        return tuple(ModelSummary.model_validate(_summary(registry, entry)) for entry in entries)

    @routes.get("/models/{name}", summary="Describe a model", responses=problems(404))
    def model(name: ModelName) -> ModelDetail:
        return describe(name)

    @routes.get("/models/{name}/versions/{version}", summary="Describe a version", responses=problems(404, 422))
    def version(name: ModelName, version: Version) -> ModelDetail:
        return describe(name, version)

    def describe(name: str, version: int | None = None) -> ModelDetail:
        entry = registry.entry(name, version)
        manifest = entry.manifest
        more = set(ModelDetail.model_fields) - set(ModelSummary.model_fields)
        detail = {field: getattr(manifest, field) for field in more} if manifest else {}
        return ModelDetail.model_validate(_summary(registry, entry) | detail)

    @routes.get("/models/{name}/report/{file}", summary="A file of a model's report", responses=problems(404), **_FILE)
    def report(name: ModelName, file: str) -> WholeFileResponse:
        return send(file, name)

    @routes.get(
        "/models/{name}/versions/{version}/report/{file}",
        summary="A file of a version's report",
        responses=problems(404, 422),
        **_FILE,
    )
    def version_report(name: ModelName, version: Version, file: str) -> WholeFileResponse:
        return send(file, name, version)

    def send(file: str, name: str, version: int | None = None) -> WholeFileResponse:
        files = report_files(registry.entry(name, version))
        if file not in files:
            missing = shortened(file)
            raise ReportNotFoundError(
                f"The report of {name} has no file '{missing}'; GET /models/{name} lists its files."
            )
        return WholeFileResponse(files[file], headers=_REPORT_HEADERS)

    return routes


def _summary(registry: Registry, entry: Entry) -> dict[str, object]:
    ref, manifest = entry.ref, entry.manifest
    summary: dict[str, object] = {
        "name": ref.name,
        "version": ref.version,
        "state": _STATES[type(entry)],
        "current": registry.is_current(entry),
        "reason": None if isinstance(entry, Loaded) else entry.reason,
        "report": tuple(report_files(entry)),
    }
    if manifest:
        summary |= {
            "task": manifest.task,
            "labels": manifest.labels,
            "input": manifest.input,
            "explanation": manifest.explanation,
        } | _test_accuracy(manifest, entry.model.choice.variant if isinstance(entry, Loaded) else manifest.fp32)
    if isinstance(entry, Loaded):
        summary |= {
            "variant": entry.model.choice.variant.name,
            "variant_reason": entry.model.choice.reason,
            "provider": entry.model.provider,
            "execution": entry.model.execution,
        }
    return summary


def _test_accuracy(manifest: ModelManifest, variant: Variant) -> dict[str, object]:
    accuracy, images = variant.metrics.accuracy, manifest.metrics.test.n
    return {
        "accuracy": accuracy,
        "accuracy_interval": wilson_interval(round(accuracy * images), images),
        "accuracy_variant": variant.name,
        "test_images": images,
    }
