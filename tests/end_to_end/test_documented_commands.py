"""Runs the `sh` blocks of the README and the guides unchanged."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.evaluation import EvaluationReport
from schemas.prediction import PredictResponse
from tests.support.pages import PAGES, code_blocks, name_of
from tests.support.service_process import REPOSITORY, Service, environment

EXAMPLES = [
    pytest.param(example, id=f"{name_of(page)}-{number}")
    for page in PAGES
    for number, example in enumerate(code_blocks(page, "sh"), start=1)
]


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_works_as_pasted(service: Service, artifacts: Path, example: str) -> None:
    output = run(example, service, artifacts)
    if "trainer" in example:
        return
    if "/predict" in example:
        assert PredictResponse.model_validate_json(output).model == "digits"
    elif "/evaluate" in example:
        assert EvaluationReport.model_validate_json(output).accuracy == 1
    elif "/infer" in example:
        assert json.loads(output)["outputs"][0]["data"][0].endswith(":0:0")
    elif ":predict" in example:
        assert json.loads(output)["predictions"][0]["label"] == "0"


def run(example: str, service: Service, artifacts: Path) -> str:
    script = example.replace("http://127.0.0.1:8000", service.url).replace(".venv/bin/python", sys.executable)
    script = script.replace("curl ", "curl --silent --show-error --fail-with-body ")
    result = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=artifacts.parent,
        env={**environment(), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def test_every_kind_of_body_has_an_example() -> None:
    text = "\n".join(example for page in PAGES for example in code_blocks(page, "sh"))
    kinds = ("-F files=@", "application/json", "image/png", "application/x-npy", "-F labels=", '"labels"', "b64")
    for kind in (*kinds, "-F archive=@", "/infer", ":predict"):
        assert kind in text


@pytest.mark.parametrize("page", ["README.md", "docs/serving.md"])
def test_the_response_on_a_page_matches_the_service(page: str, service: Service, artifacts: Path) -> None:
    (shown,) = (PredictResponse.model_validate_json(block) for block in code_blocks(REPOSITORY / page, "json"))
    request = next(block for block in code_blocks(REPOSITORY / "README.md", "sh") if "/predict" in block)
    given = PredictResponse.model_validate_json(run(request, service, artifacts))
    assert without_probabilities(given) == without_probabilities(shown)


def without_probabilities(response: PredictResponse) -> list[tuple[str, int, str, int]]:
    """Compares two answers. Probabilities, and the order of improbable classes, may differ between machines."""
    return [
        (response.model, response.version, prediction["label"], len(prediction["top"]))
        for prediction in response.model_dump()["predictions"]
    ]
