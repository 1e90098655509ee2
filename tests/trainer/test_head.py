import pytest
from torch import nn

from trainer.models.layers import OneNeuron, Shape, head_name
from trainer.models.registry import NETWORKS, network_named
from trainer.training.optimizers import body_parameters, slow_body

CLASSES = 6


@pytest.mark.parametrize("name", NETWORKS)
def test_the_head_is_the_layer_that_gives_the_logits(name: str) -> None:
    network = network_named(name).build(Shape(height=32, width=32, channels=3, classes=CLASSES))
    head = network.get_submodule(head_name(network))
    assert isinstance(head, nn.Linear)
    assert head.out_features == CLASSES
    body = sum(parameter.numel() for parameter in body_parameters(network))
    trained = sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
    assert body == trained - sum(parameter.numel() for parameter in head.parameters())


def test_the_head_is_found_below_what_surrounds_a_network() -> None:
    assert (
        head_name(nn.Sequential(nn.Identity(), nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), OneNeuron())) == "1.1"
    )


def test_a_slow_body_divides_each_group_and_keeps_what_it_says() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    groups = [
        {"params": [p for p in network.parameters() if p.ndim > 1], "weight_decay": 0.1, "rate": 1.0},
        {"params": [p for p in network.parameters() if p.ndim == 1], "weight_decay": 0.0, "rate": 64.0},
    ]
    divided = slow_body(groups, network, 0.25)
    rates = {id(p): (group["rate"], group["weight_decay"]) for group in divided for p in group["params"]}
    (weight, bias), (head_weight, head_bias) = (tuple(layer.parameters()) for layer in network)
    assert [rates[id(p)] for p in (weight, bias, head_weight, head_bias)] == [
        (0.25, 0.1),
        (16.0, 0.0),
        (1.0, 0.1),
        (64.0, 0.0),
    ]
    assert slow_body(groups, network, 1.0) == groups


def test_what_is_frozen_for_good_is_not_of_the_body() -> None:
    network = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2))
    network[0].weight.requires_grad_(False)
    assert [tuple(p.shape) for p in body_parameters(network)] == [(3,)]
