import csv
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support import probe_runs
from tests.support.encoded_images import encode
from tests.support.recorder import CPU, Recorder
from trainer.cleaning.clean import find_mistakes
from trainer.cleaning.findings import Finding, Kind, copies
from trainer.cleaning.page import LIST, PAGE, write_findings
from trainer.cli.main import main
from trainer.data.dataset import FakeSource, LabelledImages
from trainer.errors import WriteError


def smooth(seed: int, side: int = 64) -> Image.Image:
    """Returns a picture of large blobs. Two of these differ as much as two photos."""
    noise = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), np.uint8)
    return Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC)


def labelled(*pictures: Image.Image) -> LabelledImages:
    names = np.array([f"{i}.png".encode() for i in range(len(pictures))])
    return LabelledImages(np.stack([np.asarray(each) for each in pictures]), np.arange(len(pictures)) % 2, names)


def test_equal_and_nearly_equal_images_are_found_with_the_earlier_one() -> None:
    original = smooth(0)
    again = Image.open(io.BytesIO(encode(original.resize((40, 40)), "JPEG", quality=60))).resize((64, 64))
    found = copies(labelled(smooth(1), original, smooth(2), original, again), ("a", "b"))
    assert [(one.kind, one.file, one.detail) for one in found] == [
        (Kind.EQUAL, "3.png", "1.png"),
        (Kind.NEARLY_EQUAL, "4.png", "1.png"),
    ]
    assert 0.9 < found[1].certainty <= 1


def test_different_images_are_no_copies() -> None:
    assert copies(labelled(*map(smooth, range(30))), ("a", "b")) == []


def test_a_wrong_label_is_doubted_and_unreadable_files_are_listed(tmp_path: Path) -> None:
    data = probe_runs.source(90).load()
    wrong = data.train.labels.copy()
    wrong[7] = (wrong[7] + 1) % 3
    data = replace(data, train=LabelledImages(data.train.images, wrong), unreadable=(("red/x.jpg", "It is empty."),))
    _, _, findings = find_mistakes(
        probe_runs.recipe(tmp_path), FakeSource(data), CPU, Recorder(), tmp_path / "features"
    )
    (doubted,) = [one for one in findings if one.kind is Kind.LABEL]
    assert (doubted.file, doubted.label) == ("image 7", data.labels[wrong[7]])
    assert doubted.detail == data.labels[(wrong[7] - 1) % 3]
    assert findings[-1] == Finding(Kind.UNREADABLE, "red/x.jpg", "", "It is empty.", 1.0)


def test_the_page_shows_pictures_and_escapes_names(tmp_path: Path) -> None:
    images = labelled(smooth(0), smooth(1))
    findings = [
        Finding(Kind.LABEL, "<b>.png", "<i>", "b & c", 0.9, (1,)),
        Finding(Kind.NEARLY_EQUAL, "1.png", "b", "0.png", 0.95, (1, 0)),
    ]
    write_findings(tmp_path / "clean", "my <data>", images, findings)
    page = (tmp_path / "clean" / PAGE).read_text()
    assert page.count("<img") == 3
    assert "&lt;b&gt;.png" in page
    assert "b &amp; c" in page
    assert "<data>" not in page
    with (tmp_path / "clean" / LIST).open(newline="") as file:
        assert [row["file"] for row in csv.DictReader(file)] == ["<b>.png", "1.png"]


def test_a_folder_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="Choose another folder with --out"):
        write_findings(tmp_path / "file" / "clean", "data", labelled(smooth(0)), [])


def photos(folder: Path) -> Path:
    for seed in range(12):
        path = folder / "photos" / ("cat", "dog")[seed % 2] / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        smooth(seed).save(path)
    (folder / "photos" / "cat" / "broken.png").write_bytes(b"no image")
    return folder / "photos"


def shown(data: Path, exclude: Path, folder: Path) -> int:
    options = ["--set", "data.input=16,16,3", "--preset", "scratch", "--out", str(folder / "show.png")]
    return main(["show", str(data), *options, "--exclude", str(exclude)])


def test_excluded_photos_are_left_out_also_unreadable_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, exclude = photos(tmp_path), tmp_path / "exclude.csv"
    exclude.write_text("file,label\ncat/broken.png,\ncat/0.png,cat\n")
    assert shown(data, exclude, tmp_path) == 0
    output = capsys.readouterr().err
    assert "11 images of 2 classes" in output
    assert "left out 2 files, of 2 that --exclude names" in output


@pytest.mark.parametrize(
    ("text", "sentence"), [("a,b\n1,2\n", "must have a column named file"), (None, "cannot be read")]
)
def test_a_wrong_list_is_reported(
    tmp_path: Path, text: str | None, sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    exclude = tmp_path / "exclude.csv"
    if text is not None:
        exclude.write_text(text)
    assert shown(photos(tmp_path), exclude, tmp_path) == 2
    assert sentence in capsys.readouterr().err


def test_only_photo_files_can_be_excluded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "a.npz", x=np.zeros((9, 4, 4), np.uint8), y=np.arange(9) % 3)
    (tmp_path / "exclude.csv").write_text("file\nimage 1\n")
    assert shown(tmp_path / "a.npz", tmp_path / "exclude.csv", tmp_path) == 2
    assert "Remove rows from the file itself" in capsys.readouterr().err
