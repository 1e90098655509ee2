"""Writes the two ONNX files of this folder, with exporters that the tests do not install.

    pip install tensorflow-cpu tf2onnx skl2onnx scikit-learn && python make.py

Each classifies scikit-learn's digits as 8x8 images of 0 to 255: keras.onnx takes them as [batch, 8, 8, 1] and rescales
them itself, scikit_learn.onnx takes 64 values from 0 to 1.
"""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
import tf2onnx
from skl2onnx import to_onnx
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

HERE = Path(__file__).parent
digits = load_digits()
pixels = (digits.images / 16 * 255).round().astype(np.float32)[..., None]

keras.utils.set_random_seed(0)
network = keras.Sequential(
    [
        keras.Input((8, 8, 1), name="pixels"),
        keras.layers.Rescaling(1 / 255),
        keras.layers.Conv2D(16, 3, activation="relu"),
        keras.layers.MaxPooling2D(),
        keras.layers.Flatten(),
        keras.layers.Dense(10, activation="softmax"),
    ]
)
network.compile("adam", "sparse_categorical_crossentropy")
network.fit(pixels[:1000], digits.target[:1000], epochs=40, verbose=0)
signature = [tf.TensorSpec([None, 8, 8, 1], tf.float32, name="pixels")]
tf2onnx.convert.from_function(
    tf.function(network.call, input_signature=signature),
    input_signature=signature,
    opset=17,
    output_path=str(HERE / "keras.onnx"),
)

rows = (pixels[:1000] / 255).reshape(1000, 64)
linear = LogisticRegression(max_iter=1000).fit(rows, digits.target[:1000])
(HERE / "scikit_learn.onnx").write_bytes(to_onnx(linear, rows[:1], target_opset=17).SerializeToString())
