import pytest
from prometheus_client.parser import text_string_to_metric_families

from service.telemetry.counters import RESTARTS, Totals
from service.telemetry.exposition import render
from service.telemetry.metrics import Serving, Telemetry
from service.telemetry.timings import Timings
from service.workers.worker_process import Cause


@pytest.fixture(scope="session")
def figures() -> dict[str, set[str]]:
    """Returns the name and labels of each sample of /metrics, after every metric has been counted once."""
    telemetry = Telemetry("CPU")
    telemetry.request("/predict", 200, 0.1)
    telemetry.loaded("mnist", succeeded=True)
    telemetry.state("mnist", Serving(1, "fp32", "CPU"), refused=0, fallbacks={"int8"})
    telemetry.model("mnist", 1).batch(1, Timings())
    totals = Totals()
    totals.add(telemetry.take())
    totals.count(RESTARTS, Cause.KILLED)
    families = text_string_to_metric_families(render(totals.report(), "")[0].decode())
    return {sample.name: set(sample.labels) for family in families for sample in family.samples}
