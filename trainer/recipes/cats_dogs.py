"""Cats and dogs from CSV files with one sigmoid output, from EfficientNet-Lite0 with ImageNet weights.

    python -m trainer train cats-dogs --data cats-dogs
    python -m trainer train cats-dogs --data cats-dogs --preset scratch

The training is that of photos.py. The preset scratch trains a residual fast network from random weights. Because the
data set is small, its augmentation (geometry, colour, mixup and CutMix) and weight decay are strong.

Measured (docs/results.md has the details):

    cats-dogs: 97.00% (94.83% to 98.28% over test images), 75 to 83 s, 3 seeds
    cats-dogs transfer.fine_tune=off: 97.00% (94.83% to 98.28% over test images), 22 s, 1 seed
    cats-dogs data.limit=200 transfer.fine_tune=off: 97.25% (96.67% to 97.83% over seeds), 6 to 8 s, 5 seeds
    cats-dogs data.limit=50 transfer.fine_tune=off: 96.15% (94.79% to 97.51% over seeds), 6 to 7 s, 5 seeds
    cats-dogs scratch: 90.33% (88.15% to 92.51% over seeds), 367 to 493 s, 3 seeds
"""

from trainer.network_config import FastConfig
from trainer.recipe import (
    AugmentConfig,
    DataConfig,
    Flip,
    InputConfig,
    OptimizerConfig,
    OptimizerName,
    Recipe,
    Source,
)
from trainer.recipes.photos import PRETRAINED_PHOTOS

_DATA = DataConfig(source=Source.CSV, validation=0.1, labels=("dog", "cat"))

PRESETS = {
    "default": PRETRAINED_PHOTOS.model_copy(update={"name": "cats-dogs", "data": _DATA, "sigmoid": True}),
    "scratch": Recipe(
        name="cats-dogs-scratch",
        data=_DATA.model_copy(update={"input": InputConfig(height=96, width=96, channels=3)}),
        network=FastConfig(widths=(32, 64, 128, 256), residual=True, dropout=0.2),
        sigmoid=True,
        augment=AugmentConfig(
            flip=Flip.RANDOM, rotate=20, scale=0.3, translate=10, reflect=True, colour=0.3, mixup=0.4, cutmix=1
        ),
        optimizer=OptimizerConfig(name=OptimizerName.ADAMW, learning_rate=2e-3, weight_decay=0.2),
        epochs=120,
        batch_size=64,
        label_smoothing=0.1,
        ema_decay=0.995,
    ),
}
