"""CIFAR-10 with a small fast network, within 9, 17, 55 or 335 s of training on two CPU cores.

    python -m trainer train cifar10
    python -m trainer train cifar10 --preset quick
    python -m trainer train cifar10 --preset sprint
    python -m trainer train cifar10 --preset long

The training time is limited, so two runs differ, even with the same seed.

Measured (docs/results.md has the details):

    cifar10 sprint: 72.40% (71.27% to 73.53% over seeds), 9 s, 3 seeds
    cifar10 quick: 80.25% (78.56% to 81.94% over seeds), 17 s, 3 seeds
    cifar10: 86.01% (85.60% to 86.41% over seeds), 55 s, 3 seeds
    cifar10 long: 91.30% (90.17% to 92.43% over seeds), 336 to 339 s, 3 seeds
    cifar10 published: 78.48% (76.84% to 80.12% over seeds), 799 to 1,054 s, 3 seeds
"""

from trainer.network_config import FastConfig, PlainConfig
from trainer.recipe import (
    AugmentConfig,
    DataConfig,
    Flip,
    OptimizerConfig,
    OptimizerName,
    Recipe,
    ScheduleConfig,
    ScheduleName,
    Source,
    Views,
)
from trainer.recipes import cifar10_94

_DATA = DataConfig(source=Source.CIFAR10, validation=0.04)

_DEFAULT = Recipe(
    name="cifar10",
    data=_DATA,
    network=FastConfig(),
    augment=AugmentConfig(flip=Flip.ALTERNATING, translate=2),
    optimizer=OptimizerConfig(
        name=OptimizerName.MUON,
        learning_rate=1.0,
        momentum=0.85,
        weight_decay=2e-5,
        bias_rate=64,
        muon_rate=0.12,
    ),
    schedule=ScheduleConfig(name=ScheduleName.TRIANGULAR, warm_up=0.1),
    epochs=100,
    max_seconds=55,
    batch_size=512,
    label_smoothing=0.2,
    ema_decay=0.98,
)

PRESETS = {
    "default": _DEFAULT,
    "quick": _DEFAULT.model_copy(update={"name": "cifar10-quick", "max_seconds": 17}),
    # The shortest way to 70%: half the channels and small batches. It sees no image twice, so it changes none.
    "sprint": _DEFAULT.model_copy(
        update={
            "name": "cifar10-sprint",
            "network": FastConfig(widths=(32, 64, 128)),
            "augment": AugmentConfig(),
            "batch_size": 256,
            "max_seconds": 9,
        }
    ),
    # airbench's network of 94%, at full resolution: see cifar10_94.py.
    "long": cifar10_94.PRESETS["default"].model_copy(
        update={"name": "cifar10-long", "data": _DATA, "epochs": 100, "max_seconds": 335, "test_views": Views.ONE}
    ),
    # As in the Keras tutorials: pairs of convolutions, max-pools, a dense layer, softmax, no augmentation.
    "published": Recipe(
        name="cifar10-published",
        data=_DATA,
        network=PlainConfig(widths=(32, 64), batch_norm=False, dense=512, dropout=0.25),
        optimizer=OptimizerConfig(name=OptimizerName.ADAM, learning_rate=1e-3),
        schedule=ScheduleConfig(name=ScheduleName.CONSTANT),
        epochs=20,
        batch_size=64,
    ),
}
