"""Images and labels as rows of numbers: input.csv, labels.csv, input_test.csv, labels_test.csv.

A row of an input file is one image, [height][width][channels] row by row; a row of a labels file is its class index.
Header, value range and image shape are detected and stated; the shape can be set where the detection is wrong.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schemas.image import Pixels, fit_pixels
from schemas.manifest import InputSpec
from trainer.data.source import LabelledImages, Labels, SourceData
from trainer.errors import DataError

Table = npt.NDArray[np.float32]
Shape = tuple[int, int, int]

_LARGEST_PIXEL = 255
_RGB = 3


@dataclass(frozen=True)
class CsvSource:
    """labels are the classes' names, in the order of their indices; without them the indices are the names.

    shape is [height, width, channels] of a row, detected where None; input is what images are resized to, their own
    shape where None.
    """

    folder: Path
    name: str
    labels: tuple[str, ...] = ()
    shape: Shape | None = None
    input: InputSpec | None = None

    def load(self) -> SourceData:
        """Raises DataError naming the file, and the line and column of a wrong value."""
        train, told = self._part("input.csv", "labels.csv")
        test, told_of_test = self._part("input_test.csv", "labels_test.csv")
        if train.images.shape[1:] != test.images.shape[1:]:
            raise DataError(
                f"input.csv holds images of {_shown(train.images.shape)} and input_test.csv of "
                f"{_shown(test.images.shape)}; they must be alike."
            )
        classes = int(max(train.labels.max(), test.labels.max())) + 1
        labels = self.labels or tuple(str(i) for i in range(max(classes, 2)))
        if classes > len(labels):
            raise DataError(
                f"The labels go up to {classes - 1}, but there are {len(labels)} names ({', '.join(labels)})."
            )
        height, width, channels = train.images.shape[1:]
        spec = self.input or InputSpec(height=height, width=width, channels=channels)
        return SourceData(self.name, labels, spec, _resized(train, spec), _resized(test, spec), (told, told_of_test))

    def _part(self, input_name: str, labels_name: str) -> tuple[LabelledImages, str]:
        table, header = _read(self.folder / input_name)
        shape = self.shape or _detect_shape(table.shape[1], input_name)
        if math.prod(shape) != table.shape[1]:
            raise DataError(
                f"{input_name} has {table.shape[1]:,} values a row, but {_shown((0, *shape))} needs "
                f"{math.prod(shape):,}; set data.shape to height,width,channels."
            )
        pixels, value_range = _to_bytes(table, input_name, first_line=1 + header)
        labels = _read_labels(self.folder / labels_name)
        if len(labels) != len(pixels):
            raise DataError(f"{input_name} has {len(pixels):,} images and {labels_name} {len(labels):,} labels.")
        images = pixels.reshape(len(pixels), *shape)
        told = (
            f"{input_name}: {len(images):,} images of {_shown(images.shape)}, {'a' if header else 'no'} header, "
            f"values {value_range}"
        )
        return LabelledImages(images, labels), told


def _read(path: Path) -> tuple[Table, bool]:
    """The numbers, and whether a header was passed over."""
    try:
        with path.open(encoding="utf-8") as file:
            first = file.readline()
            header = bool(first) and not _is_number(first.split(",")[0])
            if not (file.readline() if header else first).strip():
                raise DataError(f"{path} holds no rows.")
        table: Table = np.loadtxt(path, np.float32, comments=None, delimiter=",", skiprows=int(header), ndmin=2)
    except FileNotFoundError as error:
        raise DataError(
            f"{path} is missing; the folder must hold input.csv, labels.csv and the same with _test."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read ({error.strerror}).") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: {_where(path, error)}") from error
    return table, header


def _where(path: Path, error: Exception) -> str:
    """A sentence with line and column, found by a second, slow look at a file that is known to be wrong."""
    try:
        with path.open(encoding="utf-8") as file:
            columns = 0
            for number, line in enumerate(file, start=1):
                values = line.rstrip("\r\n").split(",")
                if number == 1 and not _is_number(values[0]):
                    continue
                for column, value in enumerate(values, start=1):
                    if not _is_number(value):
                        return f"line {number}, column {column}: '{value[:20]}' is no number."
                columns = columns or len(values)
                if len(values) != columns:
                    return f"line {number} has {len(values):,} values, and the lines before it {columns:,}."
    except UnicodeDecodeError:
        return "it is not text."
    return f"it cannot be read as numbers ({error})."


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _detect_shape(values: int, name: str) -> Shape:
    """A square of RGB or of grey; no number is both, for the root of 3 is irrational."""
    for channels in (_RGB, 1):
        side = math.isqrt(values // channels)
        if side * side * channels == values:
            return side, side, channels
    raise DataError(
        f"{name} has {values:,} values a row, which is no square image in RGB or grey; "
        "set data.shape to height,width,channels."
    )


def _to_bytes(table: Table, name: str, *, first_line: int) -> tuple[Pixels, str]:
    """Values of 0..255 or of 0..1 -> uint8."""
    wrong = ~((table >= 0) & (table <= _LARGEST_PIXEL))  # written so that NaN is wrong
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise DataError(
            f"{name}: line {row + first_line}, column {column + 1}: {table[row, column]:g} is outside 0 to 255."
        )
    if table.max() <= 1 and (table != np.round(table)).any():
        return np.round(table * _LARGEST_PIXEL).astype(np.uint8), "0 to 1"
    return np.round(table).astype(np.uint8), "0 to 255"


def _read_labels(path: Path) -> Labels:
    table, header = _read(path)
    if table.shape[1] != 1:
        raise DataError(f"{path} has {table.shape[1]:,} values a row; a label is one class index.")
    values = table[:, 0]
    wrong = ~((values >= 0) & (values == np.round(values)))
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise DataError(f"{path}: line {row + 1 + header}: {values[row]:g} is no class index (0, 1, ...).")
    return values.astype(np.int64)


def _resized(part: LabelledImages, spec: InputSpec) -> LabelledImages:
    if part.images.shape[1:] == spec.shape:
        return part
    return LabelledImages(np.stack([fit_pixels(image, spec) for image in part.images]), part.labels)


def _shown(shape: tuple[int, ...]) -> str:
    _, height, width, channels = shape
    return f"{height}x{width} {'RGB' if channels == _RGB else 'grey'}"
