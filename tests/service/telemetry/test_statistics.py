from service.telemetry.statistics import BatchStatistics, Duration, Statistics


def of_size(size: int, count: int, ns: int) -> BatchStatistics:
    spent = [Duration(count=count, ns=ns * factor) for factor in (1, 2, 3)]
    return BatchStatistics(batch_size=size, compute_input=spent[0], compute_infer=spent[1], compute_output=spent[2])


def test_two_workers_batches_add_up_by_their_size() -> None:
    one = Statistics(name="colours", version=1, execution_count=5, batches=(of_size(1, 3, 10), of_size(8, 2, 100)))
    other = Statistics(name="colours", version=1, execution_count=3, batches=(of_size(4, 1, 50), of_size(8, 2, 300)))
    whole = one + other
    assert whole.batches == (of_size(1, 3, 10), of_size(4, 1, 50), of_size(8, 4, 400))
    assert sum(batch.compute_infer.count for batch in whole.batches) == whole.execution_count
    assert other + one == whole
