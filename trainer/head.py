"""A network's head is its last linear layer, which belongs to its classes; all the rest is its body."""

from typing import Any

from torch import nn


def head_name(network: nn.Module) -> str:
    """The head's name among the network's modules. Raises ValueError for a network without a linear layer."""
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    if not names:
        raise ValueError("the network has no linear layer")
    last: str = names[-1]
    return last


def body_parameters(network: nn.Module) -> list[nn.Parameter]:
    """Those of the body that are trained."""
    head = {id(parameter) for parameter in network.get_submodule(head_name(network)).parameters()}
    return [parameter for parameter in network.parameters() if parameter.requires_grad and id(parameter) not in head]


def slow_body(groups: list[dict[str, Any]], network: nn.Module, body_rate: float) -> list[dict[str, Any]]:
    """An optimizer's groups of parameters, each divided into the head's and the body's; the body's learn slower.

    `rate` is a group's factor on the learning rate; body_rate multiplies the body's.
    """
    if body_rate == 1:
        return groups
    body = {id(parameter) for parameter in body_parameters(network)}
    divided = []
    for group in groups:
        divided.append(group | {"params": [p for p in group["params"] if id(p) not in body]})
        slower = {"params": [p for p in group["params"] if id(p) in body], "rate": group["rate"] * body_rate}
        divided.append(group | slower)
    return [group for group in divided if group["params"]]
