from pathlib import Path

import pytest

from benchmarks.soak import MAX_SLOPE, Soaked, Soaks, render, soak
from schemas.bundle import open_bundle
from tests.support.bundles import write_bundle

REQUESTS = 300


def soaked(service: str, slope: float) -> Soaked:
    return Soaked(
        service=service,
        requests=REQUESTS,
        seconds=2.0,
        kinds={"one image": {200: 299, 503: 1}},
        unexpected={"invalid JSON: 500 instead of 400": 2},
        lost=0,
        rss_start=2**20,
        rss_warm=2**21,
        rss_end=2**21,
        slope=slope,
    )


@pytest.mark.parametrize("module", ["service", "benchmarks.leaky_service"])
def test_every_soak_request_gets_its_expected_status(tmp_path: Path, module: str) -> None:
    bundle = open_bundle(write_bundle(tmp_path))
    found = soak(module, tmp_path, bundle, REQUESTS, clients=3, sample=0.02)
    assert (found.unexpected, found.lost) == ({}, 0)
    assert found.requests == sum(count for counts in found.kinds.values() for count in counts.values()) == REQUESTS
    assert found.rss_end > 2**20


def test_the_table_reports_a_slope_above_the_limit_as_a_leak() -> None:
    service, control = soaked("service", MAX_SLOPE - 1), soaked("control", MAX_SLOPE + 1)
    assert (service.leaks, control.leaks) == (False, True)
    text = render(Soaks(service=service, control=control, machine="a laptop"))
    assert "| service | 300 | 2 | 1.0 | 2.0 | 2.0 | +99.0 | no |" in text
    assert "| control | 300 | 2 | 1.0 | 2.0 | 2.0 | +101.0 | yes |" in text
    assert "invalid JSON: 500 instead of 400 (2)" in text
    assert "| one image | 200: 299, 503: 1 |" in text
    assert "answered 300 mixed requests with 2 unexpected responses and no lost connections." in text
    assert (
        "Its memory does not leak (+99.0 bytes per request), and the leak of the control (+101.0) is detected." in text
    )
