"""Photos in one folder per class, from EfficientNet-Lite0 with ImageNet weights.

    python -m trainer train photos --data flowers
    python -m trainer train photos --data flowers --fine-tune off
    python -m trainer train photos --data flowers --preset scratch

The linear probe fits the last layer on the features of the frozen backbone. Then fine-tuning trains the later layers
of the backbone, too; its result is kept if it is better on validation (Kumar et al., 2022). The preset scratch trains a
residual fast network at 64x64 from random weights, with strong augmentation (geometry, colour, mixup and CutMix) and
weight decay. `flowers` is Kaggle's Flowers Recognition: 4,317 photos of 5 flowers, at 128x128.

Measured (docs/results.md has the details):

    photos: not measured
    photos data.input=160,160,3 transfer.fine_tune=240: 77.29% (76.40% to 78.17% over seeds), 293 to 302 s, 3 seeds
    photos scratch: 78.84% (77.24% to 80.44% over seeds), 1,054 to 3,175 s, 4 seeds
    photos published: 60.47% (56.68% to 64.25% over seeds), 145 to 193 s, 3 seeds
"""

from trainer.network_config import PACKAGED, BackboneConfig, FastConfig, PlainConfig
from trainer.recipe import (
    PRETRAINED,
    AugmentConfig,
    DataConfig,
    Flip,
    InputConfig,
    OptimizerConfig,
    OptimizerName,
    Precision,
    Recipe,
    ScheduleConfig,
    ScheduleName,
    Source,
    TransferConfig,
)

_OPEN = DataConfig(source=Source.FOLDER, validation=0.2, test=0.1)
_DATA = _OPEN.model_copy(update={"input": InputConfig(height=64, width=64, channels=3)})

PRETRAINED_PHOTOS = Recipe(
    name="photos",
    data=_OPEN,
    network=BackboneConfig(name=PACKAGED),
    transfer=TransferConfig(weights=PRETRAINED, probe=True, body_rate=0.3, frozen=0.3),
    augment=AugmentConfig(flip=Flip.RANDOM, crop=0.5, reflect=True, colour=0.3),
    optimizer=OptimizerConfig(name=OptimizerName.ADAMW, learning_rate=1e-3, weight_decay=0.05),
    epochs=10,
    batch_size=32,
    label_smoothing=0.1,
    ema_decay=0.99,
)

PRESETS = {
    "default": PRETRAINED_PHOTOS,
    "scratch": Recipe(
        name="photos-scratch",
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
