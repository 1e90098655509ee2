"""The epochs of a run in TensorBoard, MLflow or Weights & Biases, each an optional package.

TensorBoard's files are beside the checkpoints. The others take their server, or none, from their own variables
(MLFLOW_TRACKING_URI; WANDB_MODE, WANDB_DIR).
"""

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, Self

from pydantic import JsonValue

from trainer.errors import UsageError, one_line
from trainer.training.progress import Epoch, Reporter

Settings = Mapping[str, JsonValue]
"""The recipe by dotted keys."""


class TrackerName(StrEnum):
    TENSORBOARD = "tensorboard"
    MLFLOW = "mlflow"
    WANDB = "wandb"


class Tracker(Protocol):
    def log(self, figures: Mapping[str, float], epoch: int) -> None: ...
    def close(self, *, failed: bool) -> None: ...


class TensorBoard:
    def __init__(self, folder: Path, name: str, settings: Settings) -> None:  # noqa: ARG002
        from torch.utils.tensorboard import SummaryWriter  # noqa: PLC0415 - an optional package

        self._writer = SummaryWriter(folder / "tensorboard")

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        for tag, value in figures.items():
            self._writer.add_scalar(tag, value, epoch)
        self._writer.flush()

    def close(self, *, failed: bool) -> None:  # noqa: ARG002
        self._writer.close()


class MLflow:
    def __init__(self, folder: Path, name: str, settings: Settings) -> None:
        # By default, MLflow repeats a request for minutes if the server cannot be reached.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
        import mlflow  # noqa: PLC0415 - an optional package

        self._mlflow = mlflow
        mlflow.set_experiment(name)
        mlflow.start_run(run_name=folder.name)
        mlflow.log_params(dict(settings))

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        self._mlflow.log_metrics(dict(figures), step=epoch)

    def close(self, *, failed: bool) -> None:
        self._mlflow.end_run("FAILED" if failed else "FINISHED")


class WeightsAndBiases:
    def __init__(self, folder: Path, name: str, settings: Settings) -> None:
        import wandb  # noqa: PLC0415 - an optional package

        self._run: Any = wandb.init(project=name, name=folder.name, config=dict(settings))

    def log(self, figures: Mapping[str, float], epoch: int) -> None:
        self._run.log(dict(figures), step=epoch)

    def close(self, *, failed: bool) -> None:
        self._run.finish(exit_code=int(failed))


_TRACKERS: dict[TrackerName, Callable[[Path, str, Settings], Tracker]] = {
    TrackerName.TENSORBOARD: TensorBoard,
    TrackerName.MLFLOW: MLflow,
    TrackerName.WANDB: WeightsAndBiases,
}


class TrackingReporter(Reporter):
    """Passes everything on to another reporter, and the epochs to trackers. A tracker that fails is left out."""

    def __init__(
        self, inner: Reporter, names: Sequence[TrackerName], folder: Path, model: str, settings: Settings
    ) -> None:
        """Raises UsageError if a tracker's package is not installed, or if the tracker cannot start."""
        self._inner = inner
        self._trackers = {name: _start(name, folder, model, settings) for name in names}

    def note(self, sentence: str) -> None:
        self._inner.note(sentence)

    def step(self, step: int, progress: float, loss: float, accuracy: float, images_per_second: float) -> None:
        self._inner.step(step, progress, loss, accuracy, images_per_second)

    def probe(self, epoch: Epoch) -> None:
        self._inner.probe(epoch)
        self._log(epoch)

    def epoch(self, epoch: Epoch, epochs: int | None, progress: float) -> None:
        self._inner.epoch(epoch, epochs, progress)
        self._log(epoch)

    def _log(self, epoch: Epoch) -> None:
        figures = _figures(epoch)
        self._each(lambda tracker: tracker.log(figures, epoch.epoch))

    def __enter__(self) -> Self:
        self._inner.__enter__()
        return self

    def __exit__(self, *exception: object) -> None:
        self._inner.__exit__(*exception)
        self._each(lambda tracker: tracker.close(failed=any(exception)))

    def _each(self, action: Callable[[Tracker], None]) -> None:
        """A lost connection to a tracker must not cost the run."""
        for name, tracker in list(self._trackers.items()):
            try:
                action(tracker)
            except Exception as error:  # trackers raise exceptions of many types
                del self._trackers[name]
                self.note(f"warning: {name} failed and gets no more epochs: {one_line(error)}")


def _start(name: TrackerName, folder: Path, model: str, settings: Settings) -> Tracker:
    try:
        return _TRACKERS[name](folder, model, settings)
    except ImportError as error:
        raise UsageError(f"--{name} needs the package {name}. Install it with the extra [{name}].") from error
    except Exception as error:  # trackers raise exceptions of many types
        raise UsageError(f"--{name} could not start: {one_line(error)}") from error


def _figures(epoch: Epoch) -> dict[str, float]:
    """Returns loss/train, loss/validation and so on."""
    figures = {}
    for name, value in dataclasses.asdict(epoch).items():
        split, _, figure = name.partition("_")
        if name != "epoch":
            figures[f"{figure}/{split}" if split in {"train", "validation"} else name] = value
    return figures
