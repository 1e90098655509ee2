from pathlib import Path

import pytest

from schemas.default_model import read_default
from schemas.promotion import PROMOTION_FILE, PromotedBy, read_promotion
from tests.support.bundles import write_bundle
from trainer.cli.main import main


@pytest.fixture
def artifacts(tmp_path: Path) -> Path:
    for version in (1, 2):
        write_bundle(tmp_path / "artifacts", version=version)
    return tmp_path / "artifacts"


def promote(artifacts: Path, *arguments: str) -> int:
    return main(["promote", *arguments, "--artifacts", str(artifacts)])


def test_promotes_by_hand_and_rolls_back(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for version, previous in (("1", 2), ("2", 1)):
        assert promote(artifacts, "colours", version) == 0
        record = read_promotion(artifacts / "colours")
        assert record is not None
        assert (record.version, record.previous, record.by) == (int(version), previous, PromotedBy.CLI)
        output = capsys.readouterr()
        assert f"Version {version} of colours is promoted." in output.out
        assert f"To go back: python -m trainer promote colours {previous} --artifacts {artifacts}" in output.err
    written = (artifacts / "colours" / PROMOTION_FILE).read_bytes()
    assert promote(artifacts, "colours", "2") == 0
    assert "promoted already" in capsys.readouterr().err
    assert (artifacts / "colours" / PROMOTION_FILE).read_bytes() == written


def test_lists_the_versions_and_which_one_serves(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_bundle(artifacts, version=3)
    (artifacts / "colours" / "3" / "manifest.json").write_text("{")
    assert promote(artifacts, "colours", "1") == 0
    capsys.readouterr()
    assert promote(artifacts, "colours") == 0
    header, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert header[:2] == ["version", "serves"]
    assert [row[:2] for row in rows] == [["1", "yes"], ["2", "before"], ["3", "refused"]]
    assert rows[0][2:] == ["2026-01-01T00:00:00Z", "100.00%", "3"]


def test_warns_if_clients_get_other_labels(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = artifacts / "colours" / "1" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"blue"', '"teal"'))
    assert promote(artifacts, "colours", "1") == 0
    assert "its labels differ from those of version 2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["cats", "1"], "has no model 'cats'. Its models: colours."),
        (["cats"], "has no model 'cats'. Its models: colours."),
        (["colours", "7"], "colours has no version 7. Its versions: 1, 2."),
    ],
)
def test_an_unknown_model_or_version_is_refused_with_the_known_ones(
    artifacts: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], named: str
) -> None:
    assert promote(artifacts, *arguments) == 2
    assert named in capsys.readouterr().err


def test_a_damaged_version_is_not_promoted(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (artifacts / "colours" / "1" / "model.onnx").write_bytes(b"no graph")
    assert promote(artifacts, "colours", "1") == 2
    assert "The SHA-256 of model.onnx differs" in capsys.readouterr().err
    assert read_promotion(artifacts / "colours") is None


def test_a_folder_that_takes_no_record_is_one_sentence(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (artifacts / "colours" / PROMOTION_FILE).mkdir()
    assert promote(artifacts, "colours", "1") == 2
    assert "promoted.json could not be written" in capsys.readouterr().err


def test_makes_a_model_the_default(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert promote(artifacts, "colours", "--default") == 0
    assert read_default(artifacts) == "colours"
    assert read_promotion(artifacts / "colours") is None
    assert "colours is the default model" in capsys.readouterr().out
    assert promote(artifacts, "nowhere", "--default") == 2
    assert read_default(artifacts) == "colours"


def test_the_list_warns_of_a_damaged_record(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (artifacts / "colours" / PROMOTION_FILE).write_text("{")
    assert promote(artifacts, "colours") == 0
    assert "promoted.json: Invalid JSON" in capsys.readouterr().err
