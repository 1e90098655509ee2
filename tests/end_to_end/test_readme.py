"""What the README says can be done, done."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from schemas.evaluation import EvaluationReport
from schemas.prediction import PredictResponse
from service.settings import settings_table
from tests.support.service_process import REPOSITORY, Service

README = (REPOSITORY / "README.md").read_text()
EXAMPLES = re.findall(r"^```sh\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.splitlines()[-1][:60])
def test_a_curl_example_works_as_pasted(service: Service, artifacts: Path, example: str) -> None:
    script = example.replace("http://127.0.0.1:8000", service.url).replace(".venv/bin/python", sys.executable)
    script = script.replace("curl ", "curl --silent --show-error --fail-with-body ")
    ended = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=artifacts.parent, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    answer = json.loads(ended.stdout)
    if "/predict" in example:
        assert PredictResponse.model_validate(answer).model == "digits"
    elif "/evaluate" in example:
        assert EvaluationReport.model_validate(answer).accuracy == 1


def test_there_is_an_example_for_each_kind_of_body() -> None:
    text = "\n".join(EXAMPLES)
    for kind in ("-F files=@", "application/json", "image/png", "application/x-npy", "-F labels=", '"labels"', "b64"):
        assert kind in text


def test_the_settings_table_is_the_settings() -> None:
    rows = [f"| `{name}` | {f'`{default}`' if default else ''} | {text} |" for name, default, text in settings_table()]
    table = "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])
    assert table in README, f"The README's settings table should be:\n{table}"


def test_every_file_that_the_readme_links_to_is_there() -> None:
    for target in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (REPOSITORY / target).exists(), target
