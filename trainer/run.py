"""One run, in the order of the data.

source -> split -> network -> loop (augments) -> calibrate -> export -> evaluate -> variants -> report -> bundle
-> promotion
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from pydantic import JsonValue
from torch import nn

from schemas.bundle import Bundle
from schemas.manifest import Reject, Task
from trainer.bundle.assemble import WEIGHTS_FILE, BundleSettings, Exported, assemble
from trainer.bundle.promotion import Promote, SharedTest, check_labels, promote_new
from trainer.bundle.provenance import provenance
from trainer.bundle.report import write_training_report
from trainer.bundle.writer import check_writable
from trainer.data.dataset import DataSource
from trainer.data.split import Splits, split
from trainer.data.suspects import Suspect, describe, find_suspects
from trainer.evaluation.calibration import calibrated, fit_temperature
from trainer.evaluation.evaluate import Evaluation
from trainer.export.onnx import NetworkOutput, export_with_map, network_logits
from trainer.models.build import build_network
from trainer.models.pretrained import starting_weights, with_weights_hash
from trainer.models.tta import with_views
from trainer.network_config import BackboneConfig
from trainer.recipe import Recipe, flat_settings
from trainer.training.checkpoint import FORMAT, Checkpoints, save_weights
from trainer.training.distributed import ALONE, World
from trainer.training.loop import Fitted, fit
from trainer.training.progress import Reporter
from trainer.training.run_dir import has_checkpoint, note_bundle, published_bundle, run_folder
from trainer.training.trackers import TrackerName, TrackingReporter


@dataclass(frozen=True)
class CheckpointOptions:
    """Where and how often a run writes checkpoints, and its trackers.

    resume continues the last run of the same settings and data.
    """

    folder: Path
    resume: bool = False
    trackers: Sequence[TrackerName] = ()
    every_seconds: float = 30.0


def train(
    recipe: Recipe,
    source: DataSource,
    device: torch.device,
    artifacts: Path,
    reporter: Reporter,
    *,
    runs: CheckpointOptions | None = None,
    world: World = ALONE,
    relabel: bool = False,
    promote: Promote = Promote.IF_NOT_WORSE,
) -> Bundle | None:
    """Trains a recipe and writes its bundle; without runs, it writes no checkpoints.

    Of several processes in a world, the main one returns the bundle and the others None. Resuming a run that has
    written its bundle returns that bundle. relabel allows other labels than the version that serves has. Raises the
    errors of trainer/errors.py.
    """
    weights = starting_weights(recipe)
    recipe = with_weights_hash(recipe, weights)
    with world.main_process_first():  # the first process decodes the images, the others read them from the cache
        data = split(source.load(), recipe.data)
        if world.is_main:  # only after the data was read: a run that cannot start creates nothing
            check_writable(artifacts, recipe.name)
            if not relabel:
                check_labels(artifacts / recipe.name, data.labels)
    suspects = find_suspects(data) if world.is_main else []
    for sentence in (*data.notes, *describe(suspects)):
        reporter.note(sentence)
    torch.manual_seed(recipe.seed)
    network = build_network(recipe, data, weights)
    with _checkpoints(runs, world, recipe, data, device, reporter) as checkpoints:
        folder = checkpoints.folder if checkpoints is not None and world.is_main else None
        finished = published_bundle(folder) if folder is not None else None
        if world.broadcast(finished is not None):
            reporter.note(f"{folder} has finished and written its bundle. To train again, leave out --resume.")
            return finished
        if runs is not None and runs.trackers and folder is not None:
            reporter = TrackingReporter(reporter, runs.trackers, folder, recipe.name, flat_settings(recipe))
        fitted = _fit(network, data, recipe, device, reporter, checkpoints, world, runs)
        if not world.is_main:
            return None
        recipe = recipe.model_copy(update={"precision": fitted.precision})  # for auto, the measured one
        with _weights_kept_in(folder, fitted.network):
            bundle, test = write_bundle(recipe, data, suspects, fitted, device, artifacts, reporter)
        if folder is not None:
            note_bundle(folder, bundle.path, reporter)
        reporter.note(promote_new(bundle, SharedTest(source, recipe.data, test.correct), promote))
        return bundle


def _fit(
    network: nn.Module,
    data: Splits,
    recipe: Recipe,
    device: torch.device,
    reporter: Reporter,
    checkpoints: Checkpoints | None,
    world: World,
    runs: CheckpointOptions | None,
) -> Fitted:
    """Trains all layers at once; or, from a backbone's weights without a last layer to keep, the last layer first."""
    transfer = recipe.transfer
    if not transfer.probe or transfer.keep_head or not isinstance(recipe.network, BackboneConfig):
        if isinstance(transfer.fine_tune, float):
            recipe = recipe.model_copy(update={"max_seconds": transfer.fine_tune})
        return fit(network, data, recipe, device, reporter, checkpoints=checkpoints, world=world)
    from trainer.training.fine_tune import fine_tune  # noqa: PLC0415 - scikit-learn takes seconds
    from trainer.training.probe import fit_probe  # noqa: PLC0415 - imports PyTorch

    assert isinstance(network, nn.Sequential)  # noqa: S101 - as build_network returns it
    probe = fit_probe(network, data, recipe, device, reporter, None if runs is None else runs.folder / "features")
    fitted = fine_tune(network, probe, data, recipe, device, reporter, checkpoints=checkpoints, world=world)
    return replace(fitted, unlike=probe.unlike)


def write_bundle(
    recipe: Recipe,
    data: Splits,
    suspects: Sequence[Suspect],
    fitted: Fitted,
    device: torch.device,
    artifacts: Path,
    reporter: Reporter,
) -> tuple[Bundle, Evaluation]:
    """Calibrates and exports a trained network, and writes its bundle, which does not serve yet.

    Returns it with its answers for the test split. Raises ExportError and WriteError.
    """
    suspects = [*suspects, *(fitted.unlike or ())]
    network = with_views(fitted.network, recipe.test_views)
    labels, logits = fitted.held or (data.validation.labels, network_logits(network, data.validation.images))
    temperature = fit_temperature(logits, labels)
    held = Evaluation.of(labels, calibrated(logits, temperature), logits, data.labels) if fitted.held else None
    original = NetworkOutput.of(partial(network_logits, network), data.test.images)
    body = fitted.body if network is fitted.network else None  # test-time views come before the body
    graph, explanation = export_with_map(network, data.input, temperature, original.images, body)
    exported = Exported(graph, temperature, original, explanation, held)
    settings = BundleSettings(
        recipe.name, Task.BINARY if recipe.sigmoid else Task.MULTICLASS, recipe.target_accuracy, recipe.variants
    )

    explain = graph.with_map.explain if graph.map_nodes else None

    def write_files(folder: Path, test: Evaluation, reject: Reject | None) -> list[str]:
        save_weights(fitted.network, folder / WEIGHTS_FILE)
        return write_training_report(folder / "report", recipe, data, suspects, fitted, test, reject, explain)

    source = provenance(recipe, data, suspects, fitted, device)
    return assemble(exported, data, settings, source, write_files, artifacts, reporter)


@contextmanager
def _weights_kept_in(folder: Path | None, network: nn.Module) -> Iterator[None]:
    """If the block fails, keeps the trained weights and adds their location to the error."""
    try:
        yield
    except Exception as error:
        if folder is None:
            raise
        if has_checkpoint(folder):
            advice = f"in {folder}. Add --resume to the same command to export them."
        else:  # a linear probe writes none
            save_weights(network, folder / WEIGHTS_FILE)
            advice = f"in {folder / WEIGHTS_FILE}, from which --weights starts another run."
        error.add_note(f"The trained weights are {advice}")
        raise


@contextmanager
def _checkpoints(
    runs: CheckpointOptions | None, world: World, recipe: Recipe, data: Splits, device: torch.device, reporter: Reporter
) -> Iterator[Checkpoints | None]:
    if runs is None:
        yield None
    elif not world.is_main:  # it takes part in each checkpoint, and writes nothing
        yield Checkpoints(runs.folder, runs.every_seconds)
    else:
        facts: dict[str, JsonValue] = {
            "recipe": recipe.model_dump(mode="json"),
            "data": data.content_hash,
            "device": device.type,
            "processes": world.size,
            "checkpoint_format": FORMAT,
        }
        with run_folder(runs.folder, recipe.name, facts, reporter, resume=runs.resume) as folder:
            yield Checkpoints(folder, runs.every_seconds)
