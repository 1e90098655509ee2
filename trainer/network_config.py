"""The settings of each network, by name. trainer/models builds the networks; this module does not import PyTorch."""

import difflib
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Discriminator, Field, Tag

from schemas.base import Frozen
from trainer.errors import RecipeError

PACKAGED = "efficientnet_lite0"  # the backbone whose ImageNet weights are installed with the trainer
_SUGGESTIONS = 3
_TIMM_MODEL = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
Width = Annotated[int, Field(ge=1, le=8192)]
Dropout = Annotated[
    float, Field(ge=0, lt=1, description="share of activations that training drops, before each dense layer")
]


class PlainConfig(Frozen):
    name: Literal["plain"] = "plain"
    widths: Annotated[tuple[Width, ...], Field(min_length=1, description="channels of each group of convolutions")] = (
        32,
        64,
    )
    depth: Annotated[int, Field(ge=1, le=16, description="convolutions before each max-pool")] = 2
    batch_norm: Annotated[bool, Field(description="batch norm after each convolution")] = True
    dense: Annotated[Width | None, Field(description="neurons of the hidden dense layer; null leaves it out")] = 128
    dropout: Dropout = 0.2


class InceptionConfig(Frozen):
    name: Literal["inception"] = "inception"
    stem: Annotated[Width, Field(description="channels of the first convolution")] = 16
    branch: Annotated[Width, Field(description="channels of each of the block's four branches")] = 16
    widths: Annotated[tuple[Width, Width, Width], Field(description="channels of the three convolutions")] = (
        64,
        64,
        64,
    )
    dense: Annotated[Width, Field(description="neurons of the hidden dense layer")] = 128
    dropout: Dropout = 0.3


class FastConfig(Frozen):
    name: Literal["fast"] = "fast"
    whitening_kernel: Annotated[int, Field(ge=1, le=7, description="side of the whitening filters, in pixels")] = 3
    whitening_stride: Annotated[
        int, Field(ge=1, le=4, description="step of the whitening filters; 2 quarters the work of all later layers")
    ] = 2
    widths: Annotated[tuple[Width, ...], Field(min_length=1, description="channels of each group")] = (64, 128, 256)
    residual: Annotated[bool, Field(description="three convolutions per group, with a skip connection over two")] = (
        False
    )
    logit_scale: Annotated[float, Field(gt=0, description="factor on the logits")] = 1 / 9
    dropout: Dropout = 0.0


class BackboneConfig(Frozen):
    """A timm classifier, by its timm name. The ImageNet weights of PACKAGED are installed with the trainer."""

    name: str


_OWN = PlainConfig | InceptionConfig | FastConfig
AnyNetwork = _OWN | BackboneConfig

NETWORKS: dict[str, type[_OWN]] = {config.model_fields["name"].default: config for config in get_args(_OWN)}


def _tag(network: Any) -> str:
    name = network.get("name") if isinstance(network, dict) else network.name
    return name if name in NETWORKS else "timm"


NetworkConfig = Annotated[
    Annotated[PlainConfig, Tag("plain")]
    | Annotated[InceptionConfig, Tag("inception")]
    | Annotated[FastConfig, Tag("fast")]
    | Annotated[BackboneConfig, Tag("timm")],
    Discriminator(_tag),
]


def network_named(name: str) -> AnyNetwork:
    """Returns the network's default settings. Any other name is a timm model."""
    return NETWORKS[name]() if name in NETWORKS else BackboneConfig(name=name)


def check_network(network: AnyNetwork) -> None:
    """Raises RecipeError for a name that is neither built in nor timm's. Importing timm would take seconds."""
    name = network.name.partition(".")[0]  # without the tag of its weights
    if isinstance(network, BackboneConfig) and name not in {PACKAGED, *_timm_names()}:
        raise unknown_network(network.name)


def unknown_network(name: str) -> RecipeError:
    known = {*NETWORKS, PACKAGED, *_timm_names()}
    begin = {each for each in known if name and each.startswith(name)}

    def rank(each: str) -> tuple[bool, float, str]:
        return each not in begin, -difflib.SequenceMatcher(None, each, name).ratio(), each

    similar = difflib.get_close_matches(name, known, n=_SUGGESTIONS, cutoff=0.5)
    close = sorted({*begin, *similar}, key=rank)[:_SUGGESTIONS]
    hint = f"Did you mean {' or '.join(close)}?" if close else "List the names with timm.list_models()."
    return RecipeError(f"Unknown network '{name}'. {hint}")


def _timm_names() -> list[str]:
    found = find_spec("timm")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("timm is not installed.", name="timm")
    files = sorted(Path(found.origin).parent.glob("models/*.py"))
    return [name for file in files for name in _TIMM_MODEL.findall(file.read_text(encoding="utf-8"))]
