"""The raw results of the benchmark: docs/benchmarks.json."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal, TypeVar

from pydantic import Field

from schemas.base import Frozen


class Group(StrEnum):
    """The parts of the benchmark, each of which can be measured alone."""

    SMALL = "small"
    LARGE = "large"
    OVERLOAD = "overload"
    PROBES = "probes"
    STARTS = "starts"
    PEERS = "peers"
    STAGES = "stages"


class Closed(Frozen):
    """One server with a number of busy connections. Latencies in milliseconds, CPU in microseconds per image."""

    kind: Literal["closed"] = "closed"
    case: str
    server: str
    round: int
    images_per_second: float
    p50: float
    p99: float
    cpu_us: float
    failed: int


class Bare(Frozen):
    """Decode and run in a loop on every core, without a server. CPU in microseconds per image."""

    kind: Literal["bare"] = "bare"
    case: str
    variant: str
    round: int
    images_per_second: float
    decode_us: float
    run_us: float


class Overload(Frozen):
    """An open loop at a multiple of the capacity just measured. Rates per second, latencies in milliseconds."""

    kind: Literal["overload"] = "overload"
    case: str
    round: int
    deadline: float
    capacity: float
    offered: float
    goodput: float
    refusal_p50: float | None
    accepted_p99: float | None
    statuses: Mapping[int, int]


class Probe(Frozen):
    """GET latencies in milliseconds while 64 connections saturate the service."""

    kind: Literal["probe"] = "probe"
    path: str
    round: int
    p50: float
    p99: float


class Start(Frozen):
    """Seconds from the command to a ready server, and MiB of its largest worker."""

    kind: Literal["start"] = "start"
    server: str
    round: int
    seconds: float
    worker_mib: float


class Stages(Frozen):
    """CPU microseconds of the workers per request, by the part of the code that spends them."""

    kind: Literal["stages"] = "stages"
    version: str
    server: str
    us: Mapping[str, float]


Row = Annotated[Closed | Bare | Overload | Probe | Start | Stages, Field(discriminator="kind")]
RowType = TypeVar("RowType", bound=Frozen)


class Results(Frozen):
    """Each group holds the rows of its last run."""

    machine: str
    small: str
    large: str
    seconds: int
    groups: Mapping[Group, tuple[Row, ...]] = {}

    def rows(self, kind: type[RowType], *groups: Group) -> list[RowType]:
        """Returns the rows of a kind; of all groups if none is named."""
        return [row for group in groups or self.groups for row in self.groups.get(group, ()) if isinstance(row, kind)]
