"""One run, in the order of the data: source -> split -> network -> loop -> what a run ends with (assemble.py)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import JsonValue

from trainer.bundle.assemble import Trained, finish
from trainer.bundle.writer import check_labels, check_writable
from trainer.data.dataset import DataSource
from trainer.data.split import Splits, split
from trainer.models.build import build_network
from trainer.models.pretrained import as_run, starting_weights
from trainer.recipe import Recipe
from trainer.training.checkpoint import Checkpoints
from trainer.training.distributed import ALONE, World
from trainer.training.loop import fit
from trainer.training.progress import Reporter
from trainer.training.run_dir import note_bundle, published_bundle, run_folder
from trainer.training.tensorboard import TensorBoardReporter


@dataclass(frozen=True)
class Runs:
    """Where runs keep their checkpoints, and how often; with resume the last such run goes on."""

    folder: Path
    resume: bool = False
    tensorboard: bool = False
    every_seconds: float = 30.0


def train(
    recipe: Recipe,
    source: DataSource,
    device: torch.device,
    artifacts: Path,
    reporter: Reporter,
    *,
    runs: Runs | None = None,
) -> Trained:
    """Trains the recipe and writes the bundle; without runs there are no checkpoints.

    Raises what trainer/errors.py lists, but for DeviceError.
    """
    trained = train_in(ALONE, recipe, source, device, artifacts, reporter, runs=runs)
    assert trained is not None  # noqa: S101 - a process alone is the first
    return trained


def train_in(
    world: World,
    recipe: Recipe,
    source: DataSource,
    device: torch.device,
    artifacts: Path,
    reporter: Reporter,
    *,
    runs: Runs | None = None,
    relabel: bool = False,
) -> Trained | None:
    """As train, in each process of a world; the first writes, and the others return None.

    Returns the bundle of a run to resume that has written it already. relabel allows other labels than the previous
    version has.
    """
    start = starting_weights(recipe)
    recipe = as_run(recipe, start)
    with world.first_one_first():  # the first decodes the images, the others find them
        data = split(source.load(), recipe.data)
        if world.first:  # the data was found: only now is anything made
            check_writable(artifacts, recipe.name)
            if not relabel:
                check_labels(artifacts / recipe.name, data.labels)
    for sentence in data.told:
        reporter.note(sentence)
    torch.manual_seed(recipe.seed)
    network = build_network(recipe, data, start)
    with _checkpoints(runs, world, recipe, data, device, reporter) as checkpoints:
        own = checkpoints.folder if checkpoints is not None and world.first else None
        done = published_bundle(own) if own is not None else None
        if world.of_the_first(done is not None):
            reporter.note(
                f"{own} is finished and its bundle written, so nothing was done; leave out --resume to train anew"
            )
            return Trained(done.path, done.manifest) if done is not None else None
        if runs is not None and runs.tensorboard and own is not None:
            reporter = TensorBoardReporter(reporter, own / "tensorboard")
        fitted = fit(network, data, recipe, device, reporter, checkpoints=checkpoints, world=world)
        if not world.first:
            return None
        trained = finish(recipe, data, fitted, device, artifacts)
        if own is not None:
            note_bundle(own, trained.path, reporter)
        return trained


@contextmanager
def _checkpoints(
    runs: Runs | None, world: World, recipe: Recipe, data: Splits, device: torch.device, reporter: Reporter
) -> Iterator[Checkpoints | None]:
    if runs is None:
        yield None
    elif not world.first:  # takes part in each checkpoint, and writes none
        yield Checkpoints(runs.folder, runs.every_seconds)
    else:
        facts: dict[str, JsonValue] = {
            "recipe": recipe.model_dump(mode="json"),
            "data": data.content_hash,
            "device": device.type,
            "processes": world.size,
        }
        with run_folder(runs.folder, recipe.name, facts, reporter, resume=runs.resume) as folder:
            yield Checkpoints(folder, runs.every_seconds)
