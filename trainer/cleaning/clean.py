"""Looks for mistakes in labelled images, with the features of a pretrained backbone."""

from pathlib import Path

import numpy as np
import torch
from scipy.special import softmax
from torch import nn

from schemas.manifest import Duplicates
from trainer.cleaning.findings import Finding, Kind, copies, doubted_labels
from trainer.data.dataset import DataSource, LabelledImages, SourceData
from trainer.data.split import Splits
from trainer.models.build import build_network
from trainer.models.pretrained import starting_weights, with_weights_hash
from trainer.recipe import Recipe
from trainer.training.features import compute_features
from trainer.training.probe import FeatureProblem, body_of
from trainer.training.progress import Reporter


def find_mistakes(
    recipe: Recipe, source: DataSource, device: torch.device, reporter: Reporter, cache: Path
) -> tuple[SourceData, LabelledImages, list[Finding]]:
    """Returns the data, all its images, and the findings. The recipe's network must be a pretrained backbone.

    Raises the errors of trainer/errors.py.
    """
    data = source.load()
    for note in data.notes:
        reporter.note(note)
    images = data.everything()
    weights = starting_weights(recipe)
    network = build_network(with_weights_hash(recipe, weights), _as_training_images(data, images), weights)
    assert isinstance(network, nn.Sequential)  # noqa: S101 - as build_network returns it
    features = compute_features(body_of(network), data.input, [images], device, reporter, cache)
    problem = FeatureProblem(features, images.labels, len(data.labels), balanced=False, seed=recipe.seed)
    divisions = problem.folds()
    _, held = problem.choose(divisions)
    order = np.concatenate([predicted for _, predicted in divisions])
    probabilities = np.empty_like(held.logits)
    probabilities[order] = softmax(held.logits, axis=1)
    findings = [
        *doubted_labels(images, data.labels, probabilities),
        *copies(images, data.labels),
        *(Finding(Kind.UNREADABLE, file, "", reason, 1.0) for file, reason in data.unreadable),
    ]
    return data, images, findings


def _as_training_images(data: SourceData, images: LabelledImages) -> Splits:
    none = images.take(np.empty(0, np.int64))
    unused = Duplicates(validation=0, test=0)
    return Splits(data.name, data.labels, data.input, data.content_hash(), unused, data.notes, images, none, none)
