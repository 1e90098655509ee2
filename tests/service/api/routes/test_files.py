import os
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

PATHS = ("/models/colours/report/curves.png", "/models/colours/report/history.csv", "/static/page.css", "/", "/docs")


@pytest.mark.parametrize("path", PATHS)
def test_a_file_with_a_matching_etag_is_304(client: TestClient, path: str) -> None:
    first = client.get(path, headers={"accept-encoding": "identity"})
    tag = first.headers["etag"]
    for condition in (tag, f"W/{tag}", f'"other", {tag}', f'W/"other",W/{tag}', "*"):
        again = client.get(path, headers={"If-None-Match": condition})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), condition
    assert client.head(path, headers={"If-None-Match": tag}).status_code == 304


@pytest.mark.parametrize("path", PATHS)
def test_a_file_with_another_etag_is_sent(client: TestClient, path: str) -> None:
    for condition in ('"other"', 'W/"other"', "nonsense"):
        answer = client.get(path, headers={"If-None-Match": condition})
        assert (answer.status_code, bool(answer.content)) == (200, True)


@pytest.mark.parametrize("path", PATHS)
def test_a_file_unmodified_since_the_date_is_304(client: TestClient, path: str) -> None:
    modified = client.get(path).headers["last-modified"]
    assert client.get(path, headers={"If-Modified-Since": modified}).status_code == 304
    assert client.get(path, headers={"If-Modified-Since": "Thu, 01 Jan 1970 00:00:00 GMT"}).status_code == 200
    assert client.get(path, headers={"If-Modified-Since": "nonsense"}).status_code == 200


def test_a_rewritten_file_has_another_etag(client: TestClient, artifacts: Path) -> None:
    path = "/models/colours/report/history.csv"
    before = client.get(path)
    file = artifacts / "colours" / "1" / "report" / "history.csv"
    file.write_text(before.text.replace("0.5", "0.6"))
    os.utime(file, (1, 1))
    after = client.get(path, headers={"If-None-Match": before.headers["etag"]})
    assert (after.status_code, "0.6" in after.text) == (200, True)
