"""The recipe and data that a command's options choose, and the options that are refused before PyTorch is imported."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from schemas.bundle import open_bundle
from schemas.promotion import read_promotion
from tests.support.bundles import write_bundle, write_solid
from trainer.cli.main import main, parse
from trainer.cli.recipe_options import recipe_of
from trainer.errors import DataError, RecipeError
from trainer.recipes.registry import RECIPES, presets

ROOT = Path(__file__).parent.parent.parent.parent


def python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    settings = os.environ | environment
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True, env=settings)


@pytest.fixture
def npz(tmp_path: Path) -> Path:
    images = np.random.default_rng(0).integers(0, 256, (40, 8, 8), dtype=np.uint8)
    np.savez(tmp_path / "My Digits é.npz", images=images, labels=np.arange(40) % 2)
    return tmp_path / "My Digits é.npz"


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    for name in ("rose", "tulip"):
        write_solid(tmp_path / "Flowers (2)" / name / "a.png", "red", (9, 9))
    return tmp_path / "Flowers (2)"


def name_of(*arguments: str | Path) -> str:
    return recipe_of(parse(["train", *map(str, arguments)])).name


def test_the_user_s_own_data_names_the_model(npz: Path, flowers: Path) -> None:
    assert name_of("digits", "--set", "data.source=npz", "--data", npz) == "my-digits-e"
    assert name_of("photos", "--data", flowers) == "flowers-2"
    assert name_of("photos", "--preset", "published", "--data", flowers) == "flowers-2-published"
    assert name_of("photos", "--data", flowers, "--name", "roses") == "roses"
    assert name_of("photos", "--data", flowers, "--set", "name=roses") == "roses"
    assert name_of("mnist") == "mnist"


def test_every_preset_has_its_own_name() -> None:
    names = [recipe.name for name in RECIPES for recipe in presets(name).values()]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ("recipe", "advice"),
    [
        ("digits", "reads the digits inside scikit-learn, not .* add --set data.source=npz"),
        ("mnist", "reads data of the kind mnist, not .* add --set data.source=npz"),
        ("photos", "reads data of the kind folder, not .* add --set data.source=npz"),
    ],
)
def test_data_that_the_recipe_does_not_use_is_refused(npz: Path, recipe: str, advice: str) -> None:
    with pytest.raises(RecipeError, match=advice):
        recipe_of(parse(["train", recipe, "--data", str(npz)]))


def test_photos_are_not_a_folder_to_download_to(flowers: Path) -> None:
    with pytest.raises(RecipeError, match=r"add --set data\.source=folder"):
        recipe_of(parse(["train", "cifar10", "--data", str(flowers)]))
    assert recipe_of(parse(["train", "cifar10", "--data", str(flowers.parent)])).name == "cifar10"


def test_a_path_that_does_not_exist_is_refused_by_digits() -> None:
    with pytest.raises(RecipeError, match=r"nowhere\. It does not exist\. Leave out --data, or"):
        recipe_of(parse(["train", "digits", "--data", "nowhere"]))


def test_weights_that_do_not_exist_are_refused() -> None:
    with pytest.raises(DataError, match="The weights nowhere do not exist"):
        recipe_of(parse(["train", "digits", "--weights", "nowhere"]))


def test_a_version_with_other_labels_is_refused_before_the_training_unless_confirmed(
    tmp_path: Path, npz: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bundle(tmp_path)  # colours/1: red, green, blue
    command = ["train", "digits", "--set", "data.source=npz", "--data", str(npz), "--name", "colours", "--epochs", "1"]
    command += ["--set", "variants=", "--artifacts", str(tmp_path), "--runs", str(tmp_path / "runs")]
    assert main(command) == 2
    errors = capsys.readouterr().err
    assert "has the labels 0, 1, but" in errors
    assert "--relabel" in errors
    assert "epoch" not in errors
    assert main([*command, "--relabel"]) == 0
    assert open_bundle(tmp_path / "colours" / "2").manifest.labels == ("0", "1")
    assert main(command) == 0  # as the version before
    record = read_promotion(tmp_path / "colours")
    assert record is not None
    assert record.version == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "digitz"],
        ["train", "digits", "--set", "optimizer.lr=1"],
        ["train", "digits", "--set", "name=AntsBees"],
        ["train", "digits", "--data", "nowhere"],
        ["train", "photos", "--data", "nowhere"],
        ["train", "photos", "--data", "README.md"],
        ["train", "photos", "--data", "docs"],
        ["train", "photos", "--network", "resnet"],
        ["train", "digits", "--set", "augment.translate=8"],
        ["tune", "digits", "--trials", "1", "--set", "augment.translate=8"],
        ["train", "photos", "--data", "tests", "--set", "data.input=64,64,3", "--set", "augment.translate=64"],
        ["train", "cats-dogs", "--data", "nowhere"],
        ["train", "mnist", "--data", "pyproject.toml"],
        ["train", "digits", "--set", "data.source=npz", "--data", "nowhere.npz"],
        ["train", "digits", "--weights", "nowhere"],
        ["tune", "digits", "--trials", "1", "--space", "epochs=x"],
        ["tune", "digits", "--trials", "1", "--study", "README.md"],
        ["tune", "digits", "--trials", "1", "--study", "README.md/tune.db"],
        ["lr-find", "digits", "--steps", "3"],
        ["train", "digits", "--cache", "README.md/cache"],
        *[
            [*command, "--device", "cuda"]
            for command in (["train", "digits"], ["clean", "tests"], ["lr-find", "digits"])
        ],
        ["tune", "digits", "--trials", "1", "--device", "cuda"],
        ["clean", "nowhere"],
        ["clean", "docs"],
        ["show", "nowhere"],
        ["evaluate", "nowhere", "--data", "digits"],
    ],
    ids=" ".join,
)
def test_a_mistake_is_reported_before_pytorch_is_imported(arguments: list[str]) -> None:
    run = f"import sys; from trainer.cli.main import main; status = main({arguments})"
    ended = python(f"{run}; sys.exit(status + 10 * ('torch' in sys.modules))", CUDA_VISIBLE_DEVICES="")
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("error: ")


def test_the_help_and_the_recipes_do_without_pytorch() -> None:
    code = "import sys; from trainer.cli.main import main; main(['recipes']); sys.exit('torch' in sys.modules)"
    ended = python(code, PYTHONIOENCODING="ascii")
    assert ended.returncode == 0, ended.stderr
    assert "optimizer.learning_rate" in ended.stdout


def test_a_reader_that_stops_reading_ends_the_command_quietly() -> None:
    command = f"{sys.executable} -m trainer recipes | head -n 1; exit ${{PIPESTATUS[0]}}"
    ended = subprocess.run(["bash", "-c", command], check=False, cwd=ROOT, capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) in {(0, ""), (141, "")}
    assert ended.stdout.startswith("recipe")
