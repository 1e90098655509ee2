"""All that the next step of a run depends on, as named tensors and facts, and back: the step is the same to the bit."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainer.errors import RunError
from trainer.training.checkpoint import Tensors, TrainingState
from trainer.training.progress import Epoch

if TYPE_CHECKING:
    from trainer.training.loop import TrainingRun


def capture(run: "TrainingRun", random: Sequence[Tensors]) -> TrainingState:
    """random holds the random_states of each process of the run, in order."""
    tensors = {f"network.{name}": value for name, value in run.network.state_dict().items()}
    if run.average is not None:
        tensors |= {f"average.{name}": value for name, value in run.average.state_dict().items()}
    tensors |= {f"optimizer.{key}": value for key, value in optimizer_tensors(run.optimizers).items()}
    tensors |= {f"random.{i}.{name}": value for i, states in enumerate(random) for name, value in states.items()}
    facts: dict[str, Any] = {
        "pass": dataclasses.asdict(run.pass_),
        "history": [dataclasses.asdict(epoch) for epoch in run.history],
        "best_epoch": run.best_epoch,
        "elapsed": run.pace.elapsed,
    }
    return TrainingState(run.pace.step, tensors, run.best, facts)


def restore(run: "TrainingRun", state: TrainingState) -> None:
    """Into a run that has taken no step."""
    facts: dict[str, Any] = state.facts
    run.network.load_state_dict(_below("network.", state.tensors))
    if run.average is not None:
        run.average.load_state_dict(_below("average.", state.tensors))
    load_optimizer_tensors(run.optimizers, _below("optimizer.", state.tensors))
    run.best, run.best_epoch = state.best, facts["best_epoch"]
    run.history = [Epoch(**epoch) for epoch in facts["history"]]
    run.pace.resume(state.step, facts["elapsed"])
    run.pass_ = type(run.pass_)(**facts["pass"])
    random = _below(f"random.{run.world.rank}.", state.tensors)
    run.drawn_from = random["drawn_from"]
    run.shuffling.set_state(random["shuffling"])
    run.augmenting.set_state(random["augmenting"])
    torch.set_rng_state(random["global"])
    if run.device.type == "cuda":
        torch.cuda.set_rng_state(random["cuda"], run.device)


def random_states(run: "TrainingRun") -> Tensors:
    """Of this process's generators; dropout draws from the global ones."""
    states = {
        "drawn_from": run.drawn_from,
        "shuffling": run.shuffling.get_state(),
        "augmenting": run.augmenting.get_state(),
        "global": torch.get_rng_state(),
    }
    if run.device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(run.device)
    return states


def _below(prefix: str, tensors: Tensors) -> Tensors:
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
