"""Trains the network of a Keras tutorial with the tutorial's settings, and prints its accuracy after each epoch.

    python keras_tutorial.py cifar10|mnist ARRAYS.npz TARGET MAX_SECONDS

It runs in an environment of its own and imports nothing of Convoy. Each line is JSON: the seconds of training so far,
without those of measuring the accuracy, and the accuracy on the test split.
"""

import json
import os
import sys
import time

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import keras
import numpy as np
from keras import layers


def cifar10() -> tuple[keras.Model, int, float]:
    """https://www.tensorflow.org/tutorials/images/cnn, which leaves out no training images."""
    model = keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(10),
        ]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="adam", loss=loss, metrics=["accuracy"])
    return model, 32, 1.0


def mnist() -> tuple[keras.Model, int, float]:
    """https://keras.io/examples/vision/mnist_convnet, which leaves out a tenth of the training images."""
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model, 128, 0.9


class Stopwatch(keras.callbacks.Callback):
    """Stops the training at the target, or when the time is over."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, target: float, max_seconds: float) -> None:
        super().__init__()
        self.test = images, labels
        self.target, self.max_seconds = target, max_seconds
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:  # noqa: ARG002
        seconds = time.perf_counter() - self.started
        accuracy = self.model.evaluate(*self.test, verbose=0)[1]
        print(json.dumps({"epoch": epoch + 1, "seconds": seconds, "accuracy": accuracy}), flush=True)
        self.model.stop_training = accuracy >= self.target or seconds >= self.max_seconds
        self.started = time.perf_counter() - seconds


def main() -> None:
    network, file, target, max_seconds = sys.argv[1:]
    keras.utils.set_random_seed(0)
    model, batch_size, share = {"cifar10": cifar10, "mnist": mnist}[network]()
    with np.load(file) as arrays:
        images, test_images = (arrays[name].astype(np.float32) / 255 for name in ("images", "test_images"))
        labels, test_labels = arrays["labels"], arrays["test_labels"]
    count = int(len(images) * share)
    watch = Stopwatch(test_images, test_labels, float(target), float(max_seconds))
    watch.started = time.perf_counter()
    model.fit(images[:count], labels[:count], batch_size=batch_size, epochs=1000, verbose=0, callbacks=[watch])


if __name__ == "__main__":
    main()
