"""What one version of a model has done so far, in the words of the Open Inference Protocol's statistics."""

from typing import Annotated

from pydantic import Field

from schemas.base import Frozen

Count = Annotated[int, Field(ge=0)]


class Duration(Frozen):
    count: Count = 0
    ns: Annotated[int, Field(ge=0, description="nanoseconds, over all counted")] = 0

    def __add__(self, other: "Duration") -> "Duration":
        return Duration(count=self.count + other.count, ns=self.ns + other.ns)


class BatchStatistics(Frozen):
    """Of the batches of one size, in images that were run; each count is that of the batches."""

    batch_size: Annotated[int, Field(ge=1)]
    compute_input: Duration
    compute_infer: Duration
    compute_output: Annotated[Duration, Field(description="handing the answers out; labelling is by request")]

    def __add__(self, other: "BatchStatistics") -> "BatchStatistics":
        """Of the same size."""
        return BatchStatistics(
            batch_size=self.batch_size,
            compute_input=self.compute_input + other.compute_input,
            compute_infer=self.compute_infer + other.compute_infer,
            compute_output=self.compute_output + other.compute_output,
        )


class Statistics(Frozen):
    """Adds up over the worker processes."""

    name: str
    version: int
    last_inference: Annotated[int, Field(ge=0, description="milliseconds since the epoch; 0: none yet")] = 0
    inference_count: Annotated[int, Field(ge=0, description="images answered")] = 0
    execution_count: Annotated[int, Field(ge=0, description="batches run")] = 0
    success: Duration = Duration()
    fail: Duration = Duration()
    queue: Duration = Duration()
    compute_input: Annotated[Duration, Field(description="decoding")] = Duration()
    compute_infer: Duration = Duration()
    compute_output: Annotated[Duration, Field(description="labelling")] = Duration()
    batches: Annotated[tuple[BatchStatistics, ...], Field(description="by rising size")] = ()

    def __add__(self, other: "Statistics") -> "Statistics":
        """Of the same model and version."""
        return Statistics(
            name=self.name,
            version=self.version,
            last_inference=max(self.last_inference, other.last_inference),
            inference_count=self.inference_count + other.inference_count,
            execution_count=self.execution_count + other.execution_count,
            success=self.success + other.success,
            fail=self.fail + other.fail,
            queue=self.queue + other.queue,
            compute_input=self.compute_input + other.compute_input,
            compute_infer=self.compute_infer + other.compute_infer,
            compute_output=self.compute_output + other.compute_output,
            batches=_by_size(*self.batches, *other.batches),
        )


def _by_size(*batches: BatchStatistics) -> tuple[BatchStatistics, ...]:
    whole: dict[int, BatchStatistics] = {}
    for one in batches:
        size = one.batch_size
        whole[size] = whole[size] + one if size in whole else one
    return tuple(whole[size] for size in sorted(whole))
