import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize(
    "path",
    ["/", "/docs", "/redoc", "/livez", "/models", "/nothing", "/static/page.js", "/models/colours/report/curves.png"],
)
def test_no_answer_is_guessed_at_framed_or_embedded_elsewhere(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    assert headers.get_list("x-content-type-options") == ["nosniff"]
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"


@pytest.mark.parametrize("path", ["/", "/docs", "/redoc"])
def test_a_page_forbids_being_framed_by_its_policy_too(client: TestClient, path: str) -> None:
    assert "frame-ancestors 'none'" in client.get(path).headers["content-security-policy"]
