from pathlib import Path

from tests.support.bundles import solid, write_bundle
from trainer.evaluation.predict import predict_files


def test_every_file_of_a_folder_is_answered_or_has_its_error_but_hidden_files_and_documents(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    (photos / ".ipynb_checkpoints").mkdir(parents=True)
    for name in ("a.png", ".ipynb_checkpoints/a-checkpoint.png"):
        (photos / name).write_bytes(solid("red", (9, 9)))
    (photos / "b.HEIC").write_bytes(b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00mif1heic")
    (photos / "readme.txt").write_text("not a photo")
    answers = predict_files(write_bundle(tmp_path), [photos])
    assert [(Path(answer.file).name, answer.error is None) for answer in answers] == [
        ("a.png", True),
        ("b.HEIC", False),
    ]
