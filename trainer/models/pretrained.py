"""Starting weights of a run: torchvision's pretrained ones, a safetensors file, or a bundle."""

import contextlib
import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import load
from torch import Tensor, nn

from trainer.errors import DataError, one_line
from trainer.files import open_newest_bundle
from trainer.models.layers import Normalise, head_name
from trainer.network_config import AnyNetwork, BackboneConfig, Stem
from trainer.recipe import PRETRAINED, Recipe


@dataclass(frozen=True)
class StartingWeights:
    """A network's tensors by name. normalise is the normalisation they were trained with, None if unknown."""

    source: str
    sha256: str
    tensors: dict[str, Tensor]
    normalise: Normalise | None


def starting_weights(recipe: Recipe) -> StartingWeights | None:
    """Returns the weights that transfer.weights names; None for a run from scratch.

    Raises DataError or BundleError if the weights are missing, damaged, or differ from transfer.sha256.
    """
    source, expected = recipe.transfer.weights, recipe.transfer.sha256
    if source is None:
        return None
    if source == PRETRAINED:
        weights = _published(recipe.network)
    elif Path(source).is_dir():
        bundle = open_newest_bundle(Path(source))
        weights = _from_safetensors(source, bundle.read(bundle.manifest.weights), recipe.network)
    else:
        weights = _from_safetensors(source, _read(source), recipe.network)
    if expected not in {None, weights.sha256}:
        raise DataError(
            f"The weights of {source} have the sha256 {weights.sha256}, not transfer.sha256 = {expected}. "
            "Give the weights with that hash, or set transfer.sha256=null."
        )
    return weights


def as_run(recipe: Recipe, weights: StartingWeights | None) -> Recipe:
    """Returns the recipe with the settings that the weights determine: their hash and their stem."""
    if weights is None:
        return recipe
    network: AnyNetwork = recipe.network
    if isinstance(network, BackboneConfig) and network.stem is Stem.AUTO:
        network = network.model_copy(update={"stem": Stem.PUBLISHED})
    transfer = recipe.transfer.model_copy(update={"sha256": weights.sha256})
    return recipe.model_copy(update={"network": network, "transfer": transfer})


def load_body(network: nn.Module, weights: StartingWeights) -> None:
    """Loads all weights except the head's, whose classes differ.

    Raises DataError naming the first tensor that does not fit.
    """
    head = head_name(network)
    own, given = _without(head, network.state_dict()), _without(head, weights.tensors)
    # Older releases of PyTorch did not count batch norm's batches.
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in own]
    if missing or unknown:
        difference = f"lack the tensor '{missing[0]}'" if missing else f"have the unknown tensor '{unknown[0]}'"
        raise DataError(f"The weights of {weights.source} belong to another network: they {difference}. {_ADVICE}.")
    for name, tensor in own.items():
        if name in given:
            _check_shape(name, given[name], tensor, weights.source)
    network.load_state_dict(given, strict=False)


_ADVICE = "Choose the --network, its settings and the image size that they were trained with"


def _check_shape(name: str, given: Tensor, own: Tensor, source: str) -> None:
    if given.shape == own.shape:
        return
    filters = given.ndim == own.ndim == 4
    if filters and {given.shape[1], own.shape[1]} == {1, 3}:
        kind, other = ("grey", "RGB") if given.shape[1] == 1 else ("RGB", "grey")
        raise DataError(
            f"The weights of {source} are for {kind} images ('{name}' is {_size(given)}), but these are {other}. Set "
            f"data.input.channels={given.shape[1]}, or give other weights."
        )
    raise DataError(
        f"The weights of {source} do not fit: '{name}' is {_size(given)} but must be {_size(own)}. {_ADVICE}."
    )


def _published(network: AnyNetwork) -> StartingWeights:
    """Reads torchvision's weights from torch.hub's folder, downloads them if necessary, and checks their hash."""
    if not isinstance(network, BackboneConfig):
        raise DataError(
            f"There are no pretrained weights for the network {network.name}. Choose a --network of torchvision, or "
            "give --weights a safetensors file or a bundle."
        )
    from torchvision.models import get_model_weights  # noqa: PLC0415 - the import takes a second

    published: Any = get_model_weights(network.name).DEFAULT
    file = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(published.url).path).name
    try:
        with contextlib.redirect_stdout(sys.stderr):
            tensors = published.get_state_dict(progress=sys.stderr.isatty(), check_hash=True, weights_only=True)
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
        if not sha256.startswith(file.stem.rpartition("-")[2]):
            raise ValueError("its sha256 is not the published one")  # noqa: TRY301 - one sentence for all causes
    except Exception as error:  # URLError, OSError, RuntimeError, UnpicklingError, ...
        raise DataError(
            f"The pretrained weights of {network.name} could not be read from {file} or downloaded from "
            f"{published.url} ({one_line(error)}). Put that file there, or give --weights a "
            "safetensors file or a bundle."
        ) from error
    return StartingWeights(PRETRAINED, sha256, tensors, _published_normalisation(network))


def _published_normalisation(network: BackboneConfig) -> Normalise:
    """Returns the normalisation that torchvision's weights were trained with."""
    from torchvision.models import get_model_weights  # noqa: PLC0415 - the import takes a second

    transforms = get_model_weights(network.name).DEFAULT.transforms()
    return Normalise(torch.tensor(transforms.mean), torch.tensor(transforms.std))


def _from_safetensors(source: str, data: bytes, network: AnyNetwork) -> StartingWeights:
    """Reads the weights.safetensors of a bundle, which includes the normalisation, or a network's state dict.

    For the state dict of a torchvision network, torchvision's normalisation is assumed.
    """
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise DataError(
            f"{source} is not a safetensors file ({one_line(error)}). Convert other files with "
            "safetensors.torch.save_file; pickled files are never loaded."
        ) from error
    sha256 = hashlib.sha256(data).hexdigest()
    if not {"0.scale", "0.shift"} <= set(tensors):
        known = _published_normalisation(network) if isinstance(network, BackboneConfig) else None
        return StartingWeights(source, sha256, tensors, known)
    scale, shift = tensors["0.scale"], tensors["0.shift"]
    normalise = Normalise(torch.zeros(scale.numel()), torch.ones(scale.numel()))
    normalise.load_state_dict({"scale": scale, "shift": shift})
    inner = {name.removeprefix("1."): tensor for name, tensor in tensors.items() if name.startswith("1.")}
    return StartingWeights(source, sha256, inner, normalise)


def _read(source: str) -> bytes:
    try:
        return Path(source).read_bytes()
    except OSError as error:
        raise DataError(
            f"The weights {source} cannot be read ({error.strerror}). Give 'pretrained', a safetensors file or the "
            "folder of a bundle."
        ) from error


def _without(head: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{head}.")}


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
