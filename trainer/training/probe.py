"""Linear probe: fits the last layer on the features of a frozen backbone (the first half of Kumar et al., 2022).

Logistic regression on standardised features by L-BFGS, with the penalty that validation chooses. If there are few
images, validation is k-fold cross-validation over the training and validation images, and the last layer is fitted on
all of them.
"""

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import log_softmax
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold
from sklearn.preprocessing import StandardScaler
from torch import nn

from schemas.bundle import FloatArray
from schemas.manifest import TrainingStep
from schemas.metrics import Labels, wilson_interval
from trainer.data.split import Splits
from trainer.data.suspects import Suspect, describe, unlike_others
from trainer.models.backbones import Backbone, Body
from trainer.recipe import ClassWeights, FineTune, Monitor, Recipe, Sampling
from trainer.training.features import Features, compute_features
from trainer.training.monitor import ClassCounts, score
from trainer.training.progress import Epoch, Reporter

FEW_IMAGES = 30  # per class
_FOLDS = 5
# Of scikit-learn's C, the inverse of the penalty.
_STRENGTHS = tuple(float(10**exponent) for exponent in np.arange(-4.5, 0.1, 0.5))
_MOST_STEPS = 300
_IMAGES_TO_CHOOSE = 10_000
_ABSENT = -10.0  # logit of a class that a fold has no image of

Rows = npt.NDArray[np.int64]


class HeldOut(NamedTuple):
    """Labels [n] and logits float32 [n, classes] of images that the last layer did not learn from."""

    labels: Labels
    logits: FloatArray

    @property
    def accuracy(self) -> float:
        return float((self.logits.argmax(axis=1) == self.labels).mean())

    @property
    def loss(self) -> float:
        return float(-log_softmax(self.logits, axis=1)[np.arange(len(self.labels)), self.labels].mean())

    def score(self, monitor: Monitor) -> float:
        counts = ClassCounts(self.logits.shape[1])
        counts.add(torch.from_numpy(self.logits.argmax(axis=1)), torch.from_numpy(self.labels))
        return score(monitor, counts.tensor, self.loss)


@dataclass(frozen=True)
class Probe:
    """The result. `held` are the predictions for the validation split or, with `folds`, those of cross-validation.

    body is the ONNX file of the network's body, if it was exported.
    """

    held: HeldOut
    folds: int
    seconds: float
    epoch: Epoch
    step: TrainingStep
    unlike: Sequence[Suspect]
    body: bytes | None


class _Head(NamedTuple):
    """Logits are features @ weight.T + bias; weight is [classes, features]."""

    weight: FloatArray
    bias: FloatArray

    def __call__(self, features: FloatArray) -> FloatArray:
        return features @ self.weight.T + self.bias


def fit_probe(
    network: nn.Sequential, data: Splits, recipe: Recipe, device: torch.device, reporter: Reporter, cache: Path | None
) -> Probe:
    """Sets the last layer of a network that build_network returned for a backbone. Raises ExportError, OSError."""
    features = compute_features(body_of(network), data.input, (data.train, data.validation), device, reporter, cache)
    unlike = unlike_others(data, features.images)
    for sentence in describe(unlike):
        reporter.note(sentence)
    started = time.perf_counter()
    problem = FeatureProblem(
        features,
        np.concatenate([data.train.labels, data.validation.labels]),
        len(data.labels),
        balanced=recipe.class_weights is ClassWeights.BALANCED or recipe.sampling is Sampling.BALANCED,
        seed=recipe.seed,
    )
    count = len(data.train)
    everything = np.arange(len(problem.labels))
    # Fine-tuning needs a validation split that the last layer has not seen.
    alone = recipe.transfer.fine_tune in {FineTune.AUTO, FineTune.OFF}
    few = alone and len(everything) < FEW_IMAGES * len(data.labels)
    divisions = problem.folds() if few else [(everything[:count], everything[count:])]
    strength, held = problem.choose(divisions)
    learnt = everything if few else everything[:count]
    head = problem.fit(learnt, strength)
    _set_head(network[1], head, one_neuron=recipe.sigmoid)
    seconds = features.seconds + time.perf_counter() - started
    trained = HeldOut(problem.labels[learnt], head(features.images[learnt]))
    folds = len(divisions) if few else 0
    step = TrainingStep(
        name="linear probe",
        seconds=round(seconds, 1),
        validation_accuracy=held.accuracy,
        validation_interval=wilson_interval(round(held.accuracy * len(held.labels)), len(held.labels)),
        validation_images=len(held.labels),
        folds=folds,
        kept=True,
    )
    reporter.note(f"{step.sentence}; penalty 1/{strength:g}")
    epoch = Epoch(
        epoch=1,
        learning_rate=0.0,
        train_loss=trained.loss,
        train_accuracy=trained.accuracy,
        validation_loss=held.loss,
        validation_accuracy=held.accuracy,
        score=held.score(recipe.monitor),
        seconds=seconds,
        images_per_second=len(everything) / seconds,
    )
    reporter.probe(epoch)
    return Probe(held, folds, seconds, epoch, step, unlike, features.body)


def body_of(network: nn.Sequential) -> Body:
    """Returns the body of a network that build_network returned for a backbone."""
    backbone = network[1]
    assert isinstance(backbone, Backbone)  # noqa: S101 - the callers check it
    return Body(network[0], backbone)


class FeatureProblem:
    """Predicts labels [n] from the features of images and of their mirror images."""

    def __init__(self, features: Features, labels: Labels, classes: int, *, balanced: bool, seed: int) -> None:
        self.images, self.mirrored, self.labels, self.classes = features.images, features.mirrored, labels, classes
        self._weights = "balanced" if balanced else None
        self._random = np.random.default_rng(seed)

    def folds(self) -> list[tuple[Rows, Rows]]:
        """Returns (training rows, held-out rows) per fold; each image is held out once."""
        count = min(_FOLDS, int(np.bincount(self.labels).max()))
        if count < 2:  # one image per class: there is nothing to predict with
            everything = np.arange(len(self.labels))
            return [(everything, everything)]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds
            folds = StratifiedKFold(count, shuffle=True, random_state=int(self._random.integers(2**31)))
            return list(folds.split(self.labels, self.labels))

    def choose(self, divisions: Sequence[tuple[Rows, Rows]]) -> tuple[float, HeldOut]:
        """Returns the strength with the lowest loss on the images to predict, and its predictions."""
        labels = np.concatenate([self.labels[predicted] for _, predicted in divisions])
        found: dict[float, HeldOut] = {}
        for strength in _STRENGTHS:
            logits = [
                self.fit(self._sample(learnt), strength)(self.images[predicted]) for learnt, predicted in divisions
            ]
            found[strength] = HeldOut(labels, np.concatenate(logits))
        best = min(found, key=lambda strength: found[strength].loss)
        return best, found[best]

    def fit(self, rows: Rows, strength: float) -> _Head:
        features = np.concatenate([self.images[rows], self.mirrored[rows]])
        labels = np.tile(self.labels[rows], 2)
        scaler = StandardScaler().fit(features)
        model = LogisticRegression(C=strength, max_iter=_MOST_STEPS, class_weight=self._weights)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a weak penalty; validation judges it
            model.fit(scaler.transform(features), labels)
        weight, bias = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # one row, for the second class against the first
            weight, bias = np.concatenate([0 * weight, weight]), np.concatenate([0 * bias, bias])
        return self._spread(model.classes_, weight / scaler.scale_, bias - (weight / scaler.scale_) @ scaler.mean_)

    def _spread(self, present: Labels, weight: FloatArray, bias: FloatArray) -> _Head:
        """Gives classes that are absent from a fold a low logit."""
        every = np.zeros((self.classes, weight.shape[1]), np.float32), np.full(self.classes, _ABSENT, np.float32)
        every[0][present], every[1][present] = weight, bias
        return _Head(*every)

    def _sample(self, rows: Rows) -> Rows:
        """Returns a sample of the rows: choosing the penalty needs no more images."""
        return rows if len(rows) <= _IMAGES_TO_CHOOSE else self._random.choice(rows, _IMAGES_TO_CHOOSE, replace=False)


def _set_head(backbone: nn.Module, head: _Head, *, one_neuron: bool) -> None:
    assert isinstance(backbone, Backbone)  # noqa: S101 - as in headless
    weight, bias = torch.from_numpy(head.weight), torch.from_numpy(head.bias)
    if one_neuron:  # its logit compares the second class with the first
        weight, bias = weight[1:] - weight[:1], bias[1:] - bias[:1]
    backbone.head.load_state_dict({"weight": weight, "bias": bias})
