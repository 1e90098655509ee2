"""The messages between the supervisor and its workers, as JSON lines. Each call has one answer."""

from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, TypeAdapter

from schemas.base import Frozen
from schemas.promotion import Promotion
from service.repository.plan import Plan, Refused, VersionRef
from service.telemetry.counters import Report, Series

# Calls of the supervisor


class Start(Frozen):
    """The first call, answered with Started. settings holds the secrets in readable form."""

    kind: Literal["start"] = "start"
    settings: dict[str, Any]


class Prepare(Frozen):
    """Answered with Verdict."""

    kind: Literal["prepare"] = "prepare"
    ref: VersionRef


class Serve(Frozen):
    """Answered with Done once the worker serves the plan. From the first plan on it accepts connections."""

    kind: Literal["serve"] = "serve"
    plan: Plan


class Drain(Frozen):
    """Answered with Drained once every request is answered."""

    kind: Literal["drain"] = "drain"


# Calls of a worker


class Load(Frozen):
    """Answered with Done."""

    kind: Literal["load"] = "load"
    name: str
    version: int | None


class Promote(Frozen):
    """Answered with Promoted."""

    kind: Literal["promote"] = "promote"
    name: str
    version: int


class Unload(Frozen):
    """Answered with Done."""

    kind: Literal["unload"] = "unload"
    name: str


# A call of both


class GetMetrics(Frozen):
    """Answered with Metrics: by a worker with its counts since its last answer, by the supervisor with all totals."""

    kind: Literal["get_metrics"] = "get_metrics"


Call = Annotated[
    Start | Prepare | Serve | Drain | Load | Promote | Unload | GetMetrics,
    Field(discriminator="kind"),
]


# Answers


class Done(Frozen):
    kind: Literal["done"] = "done"


class Started(Frozen):
    """provider is ONNX Runtime's execution provider in this worker, and reason says why."""

    kind: Literal["started"] = "started"
    gpu: bool
    provider: str
    reason: str


class Verdict(Frozen):
    """refused is None if the version may serve."""

    kind: Literal["verdict"] = "verdict"
    refused: Refused | None


class Promoted(Frozen):
    kind: Literal["promoted"] = "promoted"
    promotion: Promotion


class Drained(Frozen):
    """The numbers of requests that a worker has accepted and completely answered since its start."""

    kind: Literal["drained"] = "drained"
    accepted: NonNegativeInt = 0
    answered: NonNegativeInt = 0

    def __add__(self, other: "Drained") -> "Drained":
        return Drained(accepted=self.accepted + other.accepted, answered=self.answered + other.answered)


class Metrics(Frozen):
    """A Report as lists of pairs, because keys in JSON are strings."""

    kind: Literal["metrics"] = "metrics"
    counts: tuple[tuple[Series, float], ...] = ()
    gauges: tuple[tuple[Series, float], ...] = ()

    @classmethod
    def of(cls, report: Report) -> "Metrics":
        return cls(counts=tuple(report.counts.items()), gauges=tuple(report.gauges.items()))

    @property
    def report(self) -> Report:
        return Report(dict(self.counts), dict(self.gauges))


class Failed(Frozen):
    """error is the name of a class in service/errors.py; empty for an unexpected error."""

    kind: Literal["failed"] = "failed"
    error: str
    message: str


Answer = Annotated[
    Done | Started | Verdict | Promoted | Drained | Metrics | Failed,
    Field(discriminator="kind"),
]


# One line. The calling side chooses the id.


class Request(Frozen):
    id: int
    call: Call


class Response(Frozen):
    id: int
    answer: Answer


LINE: TypeAdapter[Request | Response] = TypeAdapter(Request | Response)
