"""The command line in real processes: their output and their exit status."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from schemas.bundle import open_bundle
from schemas.manifest import Duplicates
from tests.support import colour_images
from tests.support.bundles import solid, write_bundle, write_solid
from trainer.cli.main import main
from trainer.recipe import TransferConfig

ROOT = Path(__file__).parent.parent.parent.parent


def python(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    command, settings = [sys.executable, *arguments], os.environ | (environment or {})
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, env=settings)


def trainer(*arguments: str | Path, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return python("-W", "error", "-m", "trainer", *map(str, arguments), environment=environment)


def quick(artifacts: Path) -> list[str | Path]:
    where: list[str | Path] = ["--artifacts", artifacts, "--runs", artifacts.parent / "runs"]
    return ["train", "digits", "--epochs", "1", "--set", "variants=", *where]


def start(*arguments: str | Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "trainer", *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("arguments", "status", "named"),
    [
        (["digitz"], 2, "Known recipes: digits, mnist, cifar10"),
        (["digits", "--preset", "best"], 2, "Its presets: default"),
        (["digits", "--set", "optimizer.lr=1"], 2, "learning_rate"),
        (["digits", "--set", "epochs"], 2, "KEY=VALUE"),
        (["digits", "--epochs", "none"], 2, "Setting epochs = 'none': it must be a valid integer."),
        (["digits", "--set", "name=AntsBees"], 2, "Setting name = 'AntsBees': use up to 64 lower-case letters"),
        (["digits", "--set", "augment.flip=yes"], 2, "it must be 'off', 'random' or 'alternating'"),
        (["digits", "--set", "data.test=0.999"], 2, "no images to train on"),
        (["digits", "--set", "network.widths=-3,4"], 2, "network.widths"),
        (["digits", "--set", "network.dense=100000000000"], 2, "network.dense"),
        (["digits", "--seed", "99999999999999999999999"], 2, "seed"),
        (["digits", "--set", "data.split_seed=-1"], 2, "split_seed"),
        (["mnist", "--data", "pyproject.toml"], 2, "mnist could not be read"),
        (["digits", "--set", "network.widths=1,1,1,1"], 2, "cannot be halved"),
        (["digits", "--set", "data.input=64"], 2, "height,width,channels, as in 64,64,3"),
        (["digits", "--set", "data.value_range=1,0"], 2, "black must be the smaller"),
        (["digits", "--set", "data.header=perhaps"], 2, "data.header"),
        (["digits", "--set", "data.source=folder"], 2, "--set data.input=64,64,3"),
        (["digits", "--set", "data.source=npz", "--data", "tests"], 2, "add --set data.source=folder"),
        (["digits", "--set", "data.test=0"], 2, "--set data.test=0.2"),
        (["digits", "--network", "resnet"], 2, "Unknown network 'resnet'. Did you mean resnet"),
        (["digits", "--weights", "nowhere"], 2, "Give 'pretrained', a file of safetensors, or the folder of a bundle"),
        (["digits", "--weights", "tests"], 2, "tests is not a bundle"),
        (["digits", "--weights", "pretrained"], 2, "no pretrained weights for the network plain"),
        (["digits", "--set", "transfer.head_epochs=1"], 2, "without starting weights, also set head_epochs=0"),
        (["digits", "--set", "optimizer.learning_rate=1e30", "--set", "optimizer.name=sgd"], 1, "at step"),
    ],
)
def test_an_invalid_command_is_refused_in_one_sentence_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, named: str
) -> None:
    assert main(["train", *arguments, "--artifacts", str(tmp_path), "--runs", str(tmp_path / "runs")]) == status
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert named in last
    assert [entry for entry in tmp_path.rglob("*") if entry != tmp_path / "runs"] == []


def test_a_network_is_named_and_set_on_the_command_line(tmp_path: Path) -> None:
    network = ["--network", "fast", "--set", "network.widths=4", "--set", "network.whitening_stride=1"]
    assert main([*map(str, quick(tmp_path)), *network]) == 0
    recipe = open_bundle(tmp_path / "digits" / "1").manifest.provenance.recipe
    assert isinstance(recipe["network"], dict)
    assert (recipe["network"]["name"], recipe["network"]["widths"]) == ("fast", [4])


def test_a_bundle_brings_its_network_which_settings_still_change(tmp_path: Path) -> None:
    begin = [*map(str, quick(tmp_path)), "--set"]
    assert main([*begin, "network.widths=4,8"]) == 0
    assert main([*begin, "network.dropout=0.5", "--weights", str(tmp_path / "digits")]) == 0
    first, second = (open_bundle(tmp_path / "digits" / version).manifest for version in ("1", "2"))
    recipe = second.provenance.recipe
    assert first.weights is not None
    assert isinstance(recipe["network"], dict)
    assert (recipe["network"]["widths"], recipe["network"]["dropout"]) == ([4, 8], 0.5)
    started = TransferConfig(weights=str(tmp_path / "digits"), sha256=first.weights.sha256)
    assert recipe["transfer"] == started.model_dump(mode="json")
    card = (tmp_path / "digits" / "2" / "README.md").read_text()
    assert f"Training started from `{tmp_path / 'digits'}` (sha256 `{first.weights.sha256}`)" in card


def test_reports_an_unwritable_artifacts_folder_before_the_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit, match="2"):
        main(["train", "digits", "--epochs", "1", "--artifacts", str(tmp_path / "file")])
    errors = capsys.readouterr().err
    assert "cannot be written" in errors
    assert "epoch" not in errors


def test_nothing_is_made_before_the_data_was_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = ["--artifacts", str(tmp_path / "artifacts"), "--runs", str(tmp_path / "runs")]
    assert main(["train", "photos", "--data", str(tmp_path / "nowhere"), *where]) == 2
    assert f"{tmp_path / 'nowhere'} is not a folder" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_ends_the_process_without_a_traceback(tmp_path: Path) -> None:
    ended = trainer("train", "digitz", "--artifacts", tmp_path)
    assert (ended.returncode, len(ended.stderr.splitlines())) == (2, 1)


def test_refuses_cuda_on_a_machine_without_a_device(tmp_path: Path) -> None:
    ended = trainer(*quick(tmp_path), "--device", "cuda", environment={"CUDA_VISIBLE_DEVICES": ""})
    assert ended.returncode == 2
    assert "--device cuda cannot be used" in ended.stderr


def test_two_trainings_at_once_write_two_versions(tmp_path: Path) -> None:
    runs = [start(*quick(tmp_path)) for _ in range(2)]
    for run in runs:
        _, errors = run.communicate()
        assert run.returncode == 0, errors
    assert sorted(path.name for path in (tmp_path / "digits").iterdir()) == ["1", "2", "promoted.json"]
    for version in ("1", "2"):
        assert open_bundle(tmp_path / "digits" / version).manifest.version == int(version)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_nothing_and_says_so(tmp_path: Path, number: signal.Signals) -> None:
    run = start("train", "digits", "--epochs", "100000", "--artifacts", tmp_path, "--runs", tmp_path.parent / "runs")
    assert run.stderr is not None
    for line in run.stderr:
        if line.startswith("epoch"):
            break
    run.send_signal(number)
    _, errors = run.communicate()
    assert run.returncode == 130
    assert errors.splitlines()[-1].startswith("error: Interrupted; no bundle was written. ")
    assert "Traceback" not in errors
    assert list(tmp_path.iterdir()) == []


def test_a_recipe_trains_on_an_npz_file_and_says_what_it_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = colour_images.colours(60)
    np.savez(tmp_path / "mine.npz", images=data.train.images, labels=data.train.labels, classes=np.array(data.labels))
    arguments = ["--data", str(tmp_path / "mine.npz"), "--set", "data.source=npz", "--epochs", "1"]
    arguments += ["--set", "variants=", "--runs", str(tmp_path / "runs")]
    assert main(["train", "digits", *arguments, "--artifacts", str(tmp_path / "artifacts")]) == 0
    printed = capsys.readouterr().err
    assert "images: 60 images of 8x8 RGB, values 0 to 255" in printed
    assert "training images per class: red: 14" in printed
    assert printed.splitlines()[-1] == f"To serve it: CONVOY_ARTIFACTS={tmp_path / 'artifacts'} make serve"
    manifest = open_bundle(tmp_path / "artifacts" / "mine" / "1").manifest
    assert manifest.labels == ("red", "green", "blue")
    assert manifest.provenance.data.duplicates == Duplicates(validation=0, test=0)


def test_show_draws_a_recipe_s_images_or_those_of_a_folder(
    tmp_path: Path, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", "digits", "--count", "8", "--out", str(tmp_path / "digits.png")]) == 0
    assert "8 of 1,258 training images of digits" in capsys.readouterr().out
    np.savez(
        tmp_path / "mine.npz",
        images=colour_images.colours(60).train.images,
        labels=colour_images.colours(60).train.labels,
    )
    assert main(["show", str(tmp_path / "mine.npz"), "--out", str(tmp_path / "mine.png")]) == 0
    assert "32 of 42 training images of mine" in capsys.readouterr().out
    for name in ("digits.png", "mine.png"):
        with Image.open(tmp_path / name) as picture:
            assert len(picture.convert("L").getcolors() or range(256)) > 3


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere"], "'nowhere' is neither a recipe"),
        (["digits", "--preset", "best"], "Its presets: default"),
    ],
)
def test_show_says_what_it_cannot_show(capsys: pytest.CaptureFixture[str], arguments: list[str], named: str) -> None:
    assert main(["show", *arguments]) in {1, 2}
    *_, last = capsys.readouterr().err.splitlines()
    assert last.startswith("error: ")
    assert named in last


def test_recipes_are_listed_with_their_presets() -> None:
    listed = trainer("recipes")
    assert listed.returncode == 0
    for word in ("digits", "mnist", "published", "inception", "plain"):
        assert word in listed.stdout


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_solid(folder / "a.png", "red", (30, 20))
    write_solid(folder / "deep" / "b.JPG", "blue", (9, 9), "JPEG")
    (folder / "notes.txt").write_text("not an image, and not asked for")
    return folder


def test_predict_answers_files_and_folders_as_json(tmp_path: Path, photos: Path) -> None:
    bundle = write_bundle(tmp_path)
    ended = trainer("predict", bundle, photos, photos / "a.png", "--json")
    assert ended.returncode == 0, ended.stderr
    answers = json.loads(ended.stdout)
    assert [(Path(answer["file"]).name, answer["label"]) for answer in answers] == [
        ("a.png", "red"),
        ("b.JPG", "blue"),
        ("a.png", "red"),
    ]
    assert len(answers[0]["top"]) == 3
    assert answers[0]["top"][0]["probability"] == answers[0]["probability"] > 0.9


def test_predict_takes_the_newest_version_of_a_model_and_prints_a_table(tmp_path: Path, photos: Path) -> None:
    write_bundle(tmp_path, version=9, scale=0.0)
    write_bundle(tmp_path, version=10)
    ended = trainer("predict", tmp_path / "colours", photos)
    header, first, second = ended.stdout.splitlines()
    assert header.split() == ["file", "label", "probability", "next"]
    assert first.split()[1] == "red"
    assert second.split()[1] == "blue"


def test_predict_answers_the_good_images_and_names_the_bad(tmp_path: Path, photos: Path) -> None:
    (photos / "broken.png").write_bytes(solid("red", (64, 64))[:-30])
    ended = trainer("predict", write_bundle(tmp_path), photos, "--json")
    assert ended.returncode == 2
    assert "1 of 3 images could not be read" in ended.stderr
    answers = {Path(answer["file"]).name: answer for answer in json.loads(ended.stdout)}
    assert answers["a.png"]["label"] == "red"
    assert "cut short" in answers["broken.png"]["error"]


@pytest.mark.parametrize(
    ("bundle", "path", "named"),
    [
        ("colours/1", "nowhere.png", "does not exist"),
        ("colours/1", "empty", "holds no image files"),
        ("colours/7", "photos", "is not a bundle"),
    ],
)
def test_predict_names_the_missing_path(tmp_path: Path, photos: Path, bundle: str, path: str, named: str) -> None:
    write_bundle(tmp_path)
    (tmp_path / "empty").mkdir()
    ended = trainer("predict", tmp_path / bundle, tmp_path / path)
    assert ended.returncode == 2
    assert named in ended.stderr
    assert "Traceback" not in ended.stderr


def test_predict_refuses_a_damaged_bundle(tmp_path: Path, photos: Path) -> None:
    bundle = write_bundle(tmp_path)
    model = bytearray((bundle / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (bundle / "model.onnx").write_bytes(model)
    ended = trainer("predict", bundle, photos)
    assert ended.returncode == 2
    assert "SHA-256" in ended.stderr


def test_predict_does_not_need_pytorch(tmp_path: Path, photos: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; from trainer.cli.main import main; "
        f"sys.exit(main(['predict', {str(write_bundle(tmp_path))!r}, {str(photos)!r}]))"
    )
    assert python("-c", code).returncode == 0


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (["lr-find", "digits", "--out", "nowhere/lr.png"], "the folder 'nowhere' of"),
        (["show", "digits", "--out", "nowhere/show.png"], "the folder 'nowhere' of"),
        (["show", "digits", "--out", "."], "is a folder; give the name of a file"),
        (["tune", "digits", "--trials", "1", "--out", "nowhere/best.json"], "the folder 'nowhere' of"),
        (["lr-find", "digits", "--steps", "3"], "--steps must be at least"),
    ],
)
def test_reports_an_unwritable_or_undrawable_output_before_the_work(arguments: list[str], printed: str) -> None:
    ended = trainer(*arguments)
    assert ended.returncode == 2
    assert printed in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_world_that_torchrun_did_not_make_is_one_sentence(tmp_path: Path) -> None:
    ended = trainer(*quick(tmp_path / "artifacts"), environment={"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"})
    assert ended.returncode == 1
    assert "Start several processes with torchrun" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_names_that_are_not_utf_8_are_printed_into_an_ascii_pipe(tmp_path: Path) -> None:
    photos = tmp_path / os.fsdecode(b"p\xe9t")
    write_solid(photos / os.fsdecode(b"caf\xe9.png"), "red")
    (photos / "caf\u00e9.png").write_bytes(solid("blue"))
    ended = trainer("predict", write_bundle(tmp_path), photos, environment={"PYTHONIOENCODING": "ascii"})
    assert ended.returncode == 0, ended.stderr
    assert {line.split()[1] for line in ended.stdout.splitlines()[1:]} == {"red", "blue"}


def test_a_default_folder_that_cannot_be_written_is_named_before_the_training(tmp_path: Path) -> None:
    (tmp_path / "artifacts").write_text("no folder")
    command = [sys.executable, "-m", "trainer", "train", "digits"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    ended = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: argument --artifacts: 'artifacts' cannot be written")


def test_names_with_control_characters_stay_in_one_row(tmp_path: Path) -> None:
    for name in ("a\nb.png", "\x1b[31m.png"):
        (tmp_path / name).write_bytes(solid("red"))
    ended = trainer("predict", write_bundle(tmp_path / "artifacts"), tmp_path / "a\nb.png", tmp_path / "\x1b[31m.png")
    names = [line.split()[0] for line in ended.stdout.splitlines()[1:]]
    assert names == [str(tmp_path / "a\\nb.png"), str(tmp_path / "\\x1b[31m.png")]


@pytest.mark.parametrize(
    ("to", "status", "message"),
    [
        (">&-", 0, ""),
        pytest.param(
            "> /dev/full",
            1,
            "error: The output cannot be written (No space left on device).\n",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has this file"),
        ),
    ],
)
def test_a_closed_or_full_output_is_no_traceback(to: str, status: int, message: str) -> None:
    command = [f'"$0" -m trainer recipes {to}', sys.executable]
    ended = subprocess.run(["sh", "-c", *command], check=False, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (status, message)


@pytest.mark.skipif(os.getuid() != 0 or shutil.which("setpriv") is None, reason="only root can become another user")
def test_a_user_without_name_and_home_can_train_and_a_folder_without_write_access_is_named(tmp_path: Path) -> None:
    """As in a container that runs with any user id."""
    read = "+dac_read_search"  # the interpreter may be in root's home
    become = ["setpriv", "--reuid", "54321", "--regid", "54321", "--clear-groups"]
    become += ["--inh-caps", read, "--ambient-caps", read, sys.executable, "-m", "trainer"]
    unknown = {name: value for name, value in os.environ.items() if name not in {"HOME", "USER", "LOGNAME"}}
    environment = unknown | {"PYTHONPATH": str(ROOT)}

    def lr_find(folder: Path) -> subprocess.CompletedProcess[str]:
        command = [*become, "lr-find", "digits", "--steps", "10"]
        return subprocess.run(command, check=False, cwd=folder, capture_output=True, text=True, env=environment)

    for name, mode in (("free", 0o777), ("closed", 0o755)):
        (tmp_path / name).mkdir()
        (tmp_path / name).chmod(mode)
    ended = lr_find(tmp_path / "free")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "free" / "lr-find.png").exists()
    ended = lr_find(tmp_path / "closed")
    assert (ended.returncode, "Trying" in ended.stderr) == (2, False)
    assert "'.' cannot be written (Permission denied)" in ended.stderr
