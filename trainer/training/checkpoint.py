"""Checkpoints: the state of a run on disk, as safetensors and JSON, so that a stopped run can resume.

runs/<name>-<number>/
    run.json              the facts that identify the run: recipe, data, device, processes
    bundle.json           the bundle that the run ended with, if it is finished
    <step>/               the newest two checkpoints, each of them complete
        state.safetensors network, moving average, optimizers
        best.safetensors  the weights with the best validation accuracy so far
        state.json        step, sums, history, and the hashes of all three files
"""

import json
import shutil
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from pydantic import JsonValue
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from schemas.files import sync_entry
from trainer.errors import RunError, WriteError
from trainer.files import sync_tree

FORMAT = 3  # of a checkpoint's content; a run with checkpoints of another format cannot be resumed
_STATE, _BEST, _FACTS = "state.safetensors", "best.safetensors", "state.json"
_KEPT = 2
_NEW = ".new-"
# The exceptions of reading a file with arbitrary content.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, SafetensorError)

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class TrainingState:
    """Everything that a run's next step depends on. `best` is empty before the end of the first epoch."""

    step: int
    tensors: Tensors
    best: Tensors
    facts: dict[str, JsonValue] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one run, in a folder that exists."""

    def __init__(self, folder: Path, every_seconds: float) -> None:
        self.folder = folder
        self.every_seconds = every_seconds

    def save(self, state: TrainingState) -> None:
        """Writes a checkpoint and removes old ones. Raises WriteError, which leaves earlier checkpoints as they are."""
        target = self.folder / str(state.step)
        if target.exists():  # a resumed run that was already finished
            return
        new = self.folder / f"{_NEW}{uuid.uuid4().hex}"
        try:
            new.mkdir()
            files = {_STATE: save(_storable(state.tensors)), _BEST: save(_storable(state.best))}
            hashes = _hashes(files, state.step, state.facts)
            files[_FACTS] = json.dumps({"step": state.step, "sha256": hashes, "facts": state.facts}).encode()
            for name, content in files.items():
                (new / name).write_bytes(content)
            sync_tree(new)
            new.rename(target)
            sync_entry(self.folder)
        except OSError as error:
            raise WriteError(
                f"No checkpoint could be written to {self.folder} ({error.strerror}). Correct that, then start the "
                "same command again with --resume."
            ) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
        for older in self._newest_first()[_KEPT:]:
            shutil.rmtree(older, ignore_errors=True)

    def latest(self) -> tuple[TrainingState | None, list[str]]:
        """Returns the newest intact checkpoint, and a sentence for each damaged one, which is removed."""
        notes: list[str] = []
        for unfinished in self.folder.glob(f"{_NEW}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        folders = self._newest_first()
        for folder in folders:
            try:
                return _read(folder), notes
            except _DAMAGE as error:
                instead = "Starting over" if folder == folders[-1] else "Using the previous one"
                notes.append(f"Removed the damaged checkpoint {folder} ({_damage(error)}). {instead}.")
                shutil.rmtree(folder, ignore_errors=True)
        return None, notes

    def _newest_first(self) -> list[Path]:
        folders = [entry for entry in self.folder.iterdir() if entry.name.isdigit()]
        return sorted(folders, key=lambda folder: int(folder.name), reverse=True)


class _ChangedError(ValueError):
    """Names the file whose content has changed since it was written."""


def _read(folder: Path) -> TrainingState:
    written = json.loads((folder / _FACTS).read_bytes())
    contents = {name: (folder / name).read_bytes() for name in (_STATE, _BEST)}
    hashes = _hashes(contents, int(written["step"]), dict(written["facts"]))
    for name, hash_of_file in hashes.items():
        if written["sha256"][name] != hash_of_file:
            raise _ChangedError(name)
    return TrainingState(int(written["step"]), load(contents[_STATE]), load(contents[_BEST]), dict(written["facts"]))


def _hashes(contents: dict[str, bytes], step: int, facts: dict[str, JsonValue]) -> dict[str, str]:
    written = contents | {_FACTS: json.dumps([step, facts], sort_keys=True).encode()}
    return {name: sha256(content).hexdigest() for name, content in written.items()}


def _damage(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{Path(error.filename).name}: {error.strerror}"
    changed = str(error) if isinstance(error, _ChangedError) else _FACTS
    return f"{changed} was changed after it was written"


def _storable(tensors: Tensors) -> Tensors:
    """safetensors stores contiguous tensors on the CPU that share no memory."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def save_weights(network: nn.Module, path: Path) -> None:
    """Writes the network's parameters and buffers by name."""
    path.write_bytes(save({name: value.contiguous() for name, value in network.state_dict().items()}))


def tensors_below(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> Tensors:
    """Returns {"0.3.exp_avg": ...}: optimizer, parameter in the order of its groups, name of the tensor."""
    tensors = {}
    for i, optimizer in enumerate(optimizers):
        for j, parameter in enumerate(_parameters(optimizer)):
            for name, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{i}.{j}.{name}"] = value
    return tensors


def load_optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer], tensors: Tensors) -> None:
    """Loads tensors into optimizers that have not taken a step, in the memory layout of their parameters."""
    parameters = [_parameters(optimizer) for optimizer in optimizers]
    for key, value in tensors.items():
        i, j, name = key.split(".", 2)
        parameter = parameters[int(i)][int(j)]
        optimizers[int(i)].state[parameter][name] = _like(parameter, value)


def _parameters(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    groups: list[dict[str, Any]] = optimizer.param_groups
    return [parameter for group in groups for parameter in group["params"]]


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    if value.shape == parameter.shape:
        return torch.empty_like(parameter.detach(), dtype=value.dtype).copy_(value)
    if value.ndim:
        raise RunError(
            f"A checkpoint has a tensor of shape {list(value.shape)} for a parameter of shape {list(parameter.shape)}. "
            "Start the command without --resume."
        )
    # Fused optimizers keep their number of steps on the device.
    return value.to(parameter.device)
