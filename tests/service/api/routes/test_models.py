import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from schemas.report_style import REPORT_STYLE_SOURCE
from tests.service.conftest import Serve
from tests.support.altered_bundles import add_variant, change_manifest, flip_byte
from tests.support.bundles import COLOURS, solid, write_bundle
from tests.support.http_requests import problem_of


def test_models_lists_each_model_with_its_device(client: TestClient) -> None:
    listed = client.get("/models").json()
    assert (listed["default"], listed["provider"]) == ("colours", "CPUExecutionProvider")
    (model,) = listed["models"]
    expected = {
        "name": "colours",
        "version": 1,
        "state": "ready",
        "reason": None,
        "labels": list(COLOURS),
        "accuracy": 1.0,
        "variant": "fp32",
        "provider": "CPUExecutionProvider",
        "report": ["curves.png", "history.csv"],
    }
    assert expected.items() <= model.items()
    assert (model["execution"]["mode"], model["execution"]["max_batch"]) == ("event_loop", 32)
    assert "One image takes" in model["execution"]["reason"]
    assert model["input"]["height"] == 8


def test_one_model_is_described_with_metrics_and_provenance(client: TestClient) -> None:
    model = client.get("/models/colours").json()
    assert model["metrics"]["test"]["accuracy"] == 1.0
    assert model["provenance"]["data"]["name"] == "colours"
    assert [variant["name"] for variant in model["variants"]] == ["fp32"]


def test_a_refused_model_is_listed_with_its_reason(artifacts: Path, serve: Serve) -> None:
    flip_byte(write_bundle(artifacts, "bad") / "model.onnx")
    (write_bundle(artifacts, "worse") / "manifest.json").write_text("{")
    models = {model["name"]: model for model in serve().get("/models").json()["models"]}
    assert {name: model["state"] for name, model in models.items()} == {
        "bad": "refused",
        "colours": "ready",
        "worse": "refused",
    }
    assert "The SHA-256 of model.onnx differs" in models["bad"]["reason"]
    assert models["bad"]["labels"] == list(COLOURS)
    assert models["bad"]["provider"] is None
    assert models["bad"]["execution"] is None
    assert "manifest.json is not JSON" in models["worse"]["reason"]


def test_the_reason_for_another_variant_is_shown(artifacts: Path, serve: Serve) -> None:
    add_variant(artifacts / "colours" / "1", "int8", scale=1.0)
    model = serve().get("/models/colours").json()
    assert model["variant"] == "fp32"
    assert "int8 was refused: Golden sample" in model["variant_reason"]


def test_shows_the_accuracy_of_the_variant_that_answers(artifacts: Path, serve: Serve) -> None:
    add_variant(artifacts / "colours" / "1", "int8")

    def measured(manifest: dict[str, Any]) -> None:
        manifest["metrics"]["test"]["n"] = 200
        manifest["variants"][1]["metrics"]["accuracy"] = 0.93

    change_manifest(artifacts / "colours" / "1", measured)
    fields = ("variant", "accuracy_variant", "accuracy", "test_images")
    for variant, accuracy, lower in (("int8", 0.93, 0.886), ("fp32", 1.0, 0.981)):
        client = serve(variant=variant)
        for model in (client.get("/models").json()["models"][0], client.get("/models/colours").json()):
            assert tuple(model[field] for field in fields) == (variant, variant, accuracy, 200)
            assert model["accuracy_interval"]["lower"] == pytest.approx(lower, abs=5e-4)


def test_shows_the_accuracy_of_fp32_if_the_version_is_not_loaded(artifacts: Path, serve: Serve) -> None:
    path = write_bundle(artifacts, "bad")
    add_variant(path, "int8")
    flip_byte(path / "model.onnx")
    flip_byte(path / "model.int8.onnx")
    model = serve().get("/models/bad").json()
    shown = {field: model[field] for field in ("variant", "accuracy_variant", "accuracy", "test_images")}
    assert shown == {"variant": None, "accuracy_variant": "fp32", "accuracy": 1.0, "test_images": 3}


def test_names_the_default_model(artifacts: Path, serve: Serve) -> None:
    write_bundle(artifacts, "more")
    assert serve().get("/models").json()["default"] == "colours"
    assert serve(default_model="more").get("/models").json()["default"] == "more"


def test_report_files_are_served(client: TestClient) -> None:
    plot = client.get("/models/colours/report/curves.png")
    assert (plot.content, plot.headers["content-type"]) == (solid("blue"), "image/png")
    assert client.get("/models/colours/report/history.csv").text.startswith("epoch,")


def test_a_report_page_is_served_under_a_policy_that_permits_its_own_pictures_and_stylesheet_only(
    artifacts: Path, serve: Serve
) -> None:
    (artifacts / "colours" / "1" / "report" / "report.html").write_text("<!doctype html><title>colours</title>")
    (artifacts / "colours" / "1" / "report" / "predictions.csv").write_text("file,label,prediction,probability\n")
    client = serve()
    page = client.get("/models/colours/report/report.html")
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["content-security-policy"] == (
        f"default-src 'none'; img-src data:; style-src {REPORT_STYLE_SOURCE}; sandbox allow-downloads"
    )
    assert client.get("/models/colours/versions/1/report/predictions.csv").text.startswith("file,label")


@pytest.mark.parametrize(
    "file",
    ["nothing.png", "..%2Fmanifest.json", "..%2f..%2f..%2fsecret", "%2e%2e", "%2Fetc%2Fpasswd", "sub", "link", "a%00b"],
)
def test_nothing_outside_the_report_is_served(artifacts: Path, serve: Serve, file: str) -> None:
    report = artifacts / "colours" / "1" / "report"
    (artifacts / "secret").write_text("secret")
    (report / "sub").mkdir()
    (report / "link").symlink_to(artifacts / "secret")
    client = serve()
    assert client.get("/models/colours/report/history.csv").status_code == 200
    problem_of(client.get(f"/models/colours/report/{file}"), 404, "not_found")


def test_an_unknown_model_is_404(client: TestClient) -> None:
    problem_of(client.get("/models/dogs"), 404, "model_not_found")
    problem_of(client.get("/models/dogs/report/curves.png"), 404, "model_not_found")


def test_a_report_that_links_out_of_the_bundle_has_no_files(artifacts: Path, serve: Serve) -> None:
    report = artifacts / "colours" / "1" / "report"
    shutil.rmtree(report)
    report.symlink_to("/etc")
    client = serve()
    assert client.get("/models/colours").json()["report"] == []
    problem_of(client.get("/models/colours/report/passwd"), 404, "not_found")


def in_blobs(artifacts: Path, files: Iterable[Path]) -> None:
    """Makes the files of the bundle links into a cache, as the Hugging Face hub, DVC and git-annex do."""
    for i, file in enumerate(files):
        blob = artifacts.parent / "cache" / f"{i:02}" / "blob"
        blob.parent.mkdir(parents=True)
        file.rename(blob)
        file.symlink_to(blob)


def test_serves_a_report_whose_files_are_links_to_where_the_bundles_files_lie(artifacts: Path, serve: Serve) -> None:
    bundle = artifacts / "colours" / "1"
    in_blobs(artifacts, sorted(path for path in bundle.rglob("*") if path.is_file()))
    client = serve()
    assert client.get("/models/colours").json()["report"] == ["curves.png", "history.csv"]
    assert client.get("/models/colours/report/history.csv").text.startswith("epoch,")
    (bundle / "report" / "passwd.txt").symlink_to("/etc/passwd")
    problem_of(client.get("/models/colours/report/passwd.txt"), 404, "not_found")


@pytest.mark.parametrize("file", ["manifest.json", "model.onnx"])
def test_a_refused_bundle_cannot_open_other_folders_by_links_of_its_own(
    artifacts: Path, serve: Serve, file: str
) -> None:
    secrets = artifacts.parent / "secrets"
    secrets.mkdir()
    (secrets / "secret.txt").write_text("secret")
    bad = write_bundle(artifacts, "bad")
    (bad / file).unlink()
    (bad / file).symlink_to(secrets / "secret.txt")
    (bad / "report" / "secret.txt").symlink_to(secrets / "secret.txt")
    client = serve()
    assert client.get("/models/bad").json()["state"] == "refused"
    problem_of(client.get("/models/bad/report/secret.txt"), 404, "not_found")


def test_a_range_is_ignored_and_hidden_files_are_404(artifacts: Path, serve: Serve) -> None:
    (artifacts / "colours" / "1" / "report" / ".hidden").write_text("secret")
    client = serve()
    whole = client.get("/models/colours/report/history.csv")
    for value in ("bytes=999999-", "nonsense", "bytes=0-1"):
        answer = client.get("/models/colours/report/history.csv", headers={"Range": value})
        assert (answer.status_code, answer.content) == (200, whole.content)
    assert "sandbox" in whole.headers["content-security-policy"]
    problem_of(client.get("/models/colours/report/.hidden"), 404, "not_found")


def test_each_version_is_described_and_has_its_own_report(artifacts: Path, serve: Serve) -> None:
    newer = write_bundle(artifacts, version=2)
    (newer / "report" / "history.csv").write_text("the second")
    client = serve(versions="all")
    assert [client.get(f"/models/colours/versions/{n}").json()["version"] for n in (1, 2)] == [1, 2]
    assert client.get("/models/colours").json()["version"] == 2
    assert client.get("/models/colours/versions/1/report/history.csv").text.startswith("epoch,")
    assert client.get("/models/colours/versions/2/report/history.csv").text == "the second"
    problem_of(client.get("/models/colours/versions/3"), 404, "model_not_found")
    problem_of(client.get("/models/colours/versions/3/report/history.csv"), 404, "model_not_found")


def test_the_model_card_is_a_file_of_the_report(artifacts: Path, serve: Serve) -> None:
    (artifacts / "colours" / "1" / "README.md").write_text("# A card\n")
    client = serve()
    assert client.get("/models/colours").json()["report"] == ["README.md", "curves.png", "history.csv"]
    assert client.get("/models/colours/report/README.md").text == "# A card\n"


def test_lists_the_versions_that_are_not_selected_as_candidates(artifacts: Path, serve: Serve) -> None:
    write_bundle(artifacts, version=2)
    unreadable = write_bundle(artifacts, version=3)
    (unreadable / "manifest.json").write_text("{}")
    client = serve(versions="colours=1")
    listed = client.get("/models").json()
    assert [(model["version"], model["state"]) for model in listed["models"]] == [(1, "ready")]
    second, third = listed["candidates"]
    assert (second["version"], second["state"], second["accuracy"]) == (2, "candidate", 1)
    assert (third["version"], third["accuracy"]) == (3, None)
    assert "format version" in third["reason"]
    detail = client.get("/models/colours/versions/2").json()
    assert (detail["state"], detail["provenance"]["epochs"]) == ("candidate", 1)
    assert client.get("/models/colours/versions/2/report/curves.png").status_code == 200
    problem_of(client.post("/models/colours/versions/2/predict", content=solid("red")), 404, "model_not_found")
    problem_of(client.get("/models/colours/versions/4"), 404, "model_not_found")
