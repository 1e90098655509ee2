"""A run's state on disk, so that it can go on after any end: safetensors and JSON, nothing anywhere is unpickled.

runs/<name>-<number>/
    run.json              what the run is: recipe, data, device, processes
    bundle.json           the bundle that it ended with, once there is one
    <step>/               the newest two checkpoints, each whole or not there
        state.safetensors network, average, optimizers, random generators
        best.safetensors  the weights that were best on validation so far
        state.json        step, epoch, history, and the hashes of all three
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

from trainer.errors import RunError, WriteError
from trainer.files import sync_entry, sync_tree

_STATE, _BEST, _FACTS = "state.safetensors", "best.safetensors", "state.json"
_KEPT = 2
_NEW = ".new-"
# What reading a file raises that may hold anything.
_DAMAGE = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, SafetensorError)

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class TrainingState:
    """All that a run's next step depends on. best is the network's state at its best epoch, empty before the first."""

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
        """Raises WriteError where the disk does not take it; what was there before stands."""
        target = self.folder / str(state.step)
        if target.exists():  # a finished run that was taken up again
            return
        new = self.folder / f"{_NEW}{uuid.uuid4().hex}"
        try:
            new.mkdir()
            files = {_STATE: save(_plain(state.tensors)), _BEST: save(_plain(state.best))}
            hashes = _hashes(files, state.step, state.facts)
            files[_FACTS] = json.dumps({"step": state.step, "sha256": hashes, "facts": state.facts}).encode()
            for name, content in files.items():
                (new / name).write_bytes(content)
            sync_tree(new)
            new.rename(target)
            sync_entry(self.folder)
        except OSError as error:
            raise WriteError(
                f"A checkpoint could not be written to {self.folder} ({error.strerror}); mend that and start the same "
                "command again with --resume."
            ) from error
        finally:
            shutil.rmtree(new, ignore_errors=True)
        for older in self._folders()[_KEPT:]:
            shutil.rmtree(older, ignore_errors=True)

    def latest(self) -> tuple[TrainingState | None, list[str]]:
        """The newest checkpoint that is whole, and a sentence for each damaged one, which is removed."""
        told: list[str] = []
        for unfinished in self.folder.glob(f"{_NEW}*"):
            shutil.rmtree(unfinished, ignore_errors=True)
        left = self._folders()
        while left:
            folder = left.pop(0)
            try:
                return _read(folder), told
            except _DAMAGE as error:
                instead = "the checkpoint before it is taken" if left else "none is left, so the run starts anew"
                told.append(f"The checkpoint {folder} is damaged ({_reason(error)}) and was removed; {instead}.")
                shutil.rmtree(folder, ignore_errors=True)
        return None, told

    def _folders(self) -> list[Path]:
        """The newest first."""
        return sorted((entry for entry in self.folder.iterdir() if entry.name.isdigit()), key=_step, reverse=True)


def _step(folder: Path) -> int:
    return int(folder.name)


class _ChangedError(ValueError):
    """Names the file whose content is not what was written."""


def _read(folder: Path) -> TrainingState:
    said = json.loads((folder / _FACTS).read_bytes())
    contents = {name: (folder / name).read_bytes() for name in (_STATE, _BEST)}
    found = _hashes(contents, int(said["step"]), dict(said["facts"]))
    for name, before in said["sha256"].items():  # checkpoints of before have no hash of their facts
        if found[name] != before:
            raise _ChangedError(name)
    return TrainingState(int(said["step"]), load(contents[_STATE]), load(contents[_BEST]), dict(said["facts"]))


def _hashes(contents: dict[str, bytes], step: int, facts: dict[str, JsonValue]) -> dict[str, str]:
    written = contents | {_FACTS: json.dumps([step, facts], sort_keys=True).encode()}
    return {name: sha256(content).hexdigest() for name, content in written.items()}


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{Path(error.filename).name}: {error.strerror}"
    changed = str(error) if isinstance(error, _ChangedError) else _FACTS
    return f"{changed} is not what was written"


def _plain(tensors: Tensors) -> Tensors:
    """On the CPU, row by row, each with memory of its own: all that the format knows."""
    return {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}


def save_weights(network: nn.Module, path: Path) -> None:
    """The network's state by name, buffers included."""
    path.write_bytes(save({name: value.contiguous() for name, value in network.state_dict().items()}))


def tensors_below(prefix: str, tensors: Tensors) -> Tensors:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer]) -> Tensors:
    """{"0.3.exp_avg": ...}: optimizer, parameter in the order of its groups, what is remembered."""
    tensors = {}
    for i, optimizer in enumerate(optimizers):
        for j, parameter in enumerate(_parameters(optimizer)):
            for name, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"{i}.{j}.{name}"] = value
    return tensors


def load_optimizer_tensors(optimizers: Sequence[torch.optim.Optimizer], tensors: Tensors) -> None:
    """Into optimizers that have taken no step. Memory is laid out as the parameters', as the first step would have."""
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
        raise RunError(f"A checkpoint's {list(value.shape)} is not the shape of its parameter.")
    # A count of steps, which fused optimizers keep on the device.
    return value.to(parameter.device)
