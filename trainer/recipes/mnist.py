"""MNIST with an Inception-block network, in minutes on two CPU cores.

    python -m trainer train mnist
    python -m trainer train mnist --preset sprint
    python -m trainer train mnist --preset tiny

The preset sprint reaches 99% in seconds, with the network of the recipe cifar10. The preset tiny has fewer than 10,000
parameters. The preset published repeats a published run of such a network (20 epochs, batches of 60 images, about 98%).

Measured (docs/results.md has the details):

    mnist: 99.60% (99.59% to 99.62% over seeds), 130 to 236 s, 3 seeds
    mnist sprint: 99.13% (99.00% to 99.25% over seeds), 4 s, 3 seeds
    mnist tiny: 99.49% (99.33% to 99.61% over test images), 678 s, 1 seed
    mnist published: 99.43% (99.20% to 99.67% over seeds), 638 to 744 s, 3 seeds
"""

from trainer.network_config import FastConfig, InceptionConfig, PlainConfig
from trainer.recipe import (
    AugmentConfig,
    DataConfig,
    OptimizerConfig,
    OptimizerName,
    Precision,
    Recipe,
    ScheduleConfig,
    ScheduleName,
    Source,
)
from trainer.recipes import cifar10

_DATA = DataConfig(source=Source.MNIST, validation=1 / 12)

PRESETS = {
    "default": Recipe(
        name="mnist",
        data=_DATA,
        network=InceptionConfig(),
        augment=AugmentConfig(translate=2, rotate=12, scale=0.1),
        optimizer=OptimizerConfig(name=OptimizerName.ADAMW, learning_rate=4e-3, weight_decay=0.02),
        schedule=ScheduleConfig(warm_up=0.2),
        epochs=12,
        batch_size=256,
        label_smoothing=0.05,
        ema_decay=0.998,
    ),
    # The shortest way to 99%.
    "sprint": cifar10.PRESETS["sprint"].model_copy(
        update={"name": "mnist-sprint", "data": _DATA, "network": FastConfig(widths=(16, 32, 64)), "max_seconds": 4}
    ),
    # Fewer than 10,000 parameters: narrow convolutions, and no hidden dense layer.
    "tiny": Recipe(
        name="mnist-tiny",
        data=_DATA,
        network=PlainConfig(widths=(10, 14, 16), dense=None, dropout=0.0),
        augment=AugmentConfig(translate=2, rotate=12, scale=0.1),
        optimizer=OptimizerConfig(name=OptimizerName.ADAMW, learning_rate=1e-2, weight_decay=0.02),
        epochs=40,
        batch_size=128,
        ema_decay=0.998,
        precision=Precision.FP32,  # a network of this size gains nothing from bf16
    ),
    # The published run: 20 epochs, batches of 60 and of 50 for validation, no augmentation.
    "published": Recipe(
        name="mnist-published",
        data=_DATA,
        network=InceptionConfig(),
        optimizer=OptimizerConfig(name=OptimizerName.ADAM, learning_rate=1e-3),
        schedule=ScheduleConfig(name=ScheduleName.CONSTANT),
        epochs=20,
        batch_size=60,
        validation_batch_size=50,
        precision=Precision.FP32,
    ),
}
