"""Any folder of class-named folders of photos, with a residual fast network at 64x64.

    python -m trainer train photos --data flowers

The data set is small, so the augmentation (geometry, colour, mixup and CutMix) and the weight decay are strong.
`flowers` is Kaggle's Flowers Recognition: 4,317 photos of 5 flowers, at 128x128.

Measured (docs/results.md has the details):

    photos: 78.84% (77.24% to 80.44% over seeds), 1,054 to 3,175 s, 4 seeds
    photos published: 60.47% (56.68% to 64.25% over seeds), 145 to 193 s, 3 seeds
"""

from schemas.manifest import InputSpec
from trainer.network_config import FastConfig, PlainConfig
from trainer.recipe import (
    AugmentConfig,
    DataConfig,
    Flip,
    OptimizerConfig,
    OptimizerName,
    Precision,
    Recipe,
    ScheduleConfig,
    ScheduleName,
    Source,
)

_DATA = DataConfig(source=Source.FOLDER, validation=0.2, test=0.1, input=InputSpec(height=64, width=64, channels=3))

PRESETS = {
    "default": Recipe(
        name="photos",
        data=_DATA,
        network=FastConfig(widths=(64, 128, 256), residual=True, dropout=0.3),
        augment=AugmentConfig(
            flip=Flip.RANDOM, rotate=45, scale=0.3, translate=8, reflect=True, colour=0.3, mixup=0.4, cutmix=1
        ),
        optimizer=OptimizerConfig(name=OptimizerName.ADAMW, learning_rate=2e-3, weight_decay=0.4),
        epochs=200,
        batch_size=64,
        label_smoothing=0.1,
        ema_decay=0.998,
    ),
    # As published: two convolutions with ReLU and max-pools, dense layers, softmax, Adam at 1e-4.
    "published": Recipe(
        name="photos-published",
        data=_DATA,
        network=PlainConfig(widths=(32, 64), depth=1, batch_norm=False, dense=128, dropout=0.0),
        optimizer=OptimizerConfig(name=OptimizerName.ADAM, learning_rate=1e-4),
        schedule=ScheduleConfig(name=ScheduleName.CONSTANT),
        epochs=20,
        batch_size=32,
        precision=Precision.FP32,
    ),
}
