"""The images of a scoring job: image files in folders, or rows of Parquet files, on any path that fsspec reads."""

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import fsspec
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem
from pyarrow import ArrowException

from schemas.files import read_regular_file
from schemas.ignored_files import is_hidden
from trainer.data.photo import is_document
from trainer.errors import DataError, one_line

PART_IMAGES = 2_000  # of image files; a part of a Parquet file is a row group
_REMOTE_READS = 16  # at a time
_IMAGE, _LABEL, _IDS = "image", "label", ("id", "file")


class Item(NamedTuple):
    """label is its true class, if known: a name or an index. content is the encoded image, or why it is missing."""

    id: str
    label: str | int | None
    content: bytes | str


@dataclass(frozen=True)
class Files:
    """Image files by their path below the source. The name of a file's folder is its label."""

    number: int
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, source: str, size: int) -> Iterator[list[Item]]:
        """Yields the items in lists of this size."""
        files, root = open_path(source)
        read = (lambda path: read_regular_file(Path(path))) if is_local(files) else files.cat_file

        def item(name: str) -> Item:
            folder = name.rpartition("/")[0].rpartition("/")[2]
            try:
                return Item(name, folder or None, read(f"{root}/{name}"))
            except OSError as error:
                return Item(name, folder or None, f"The file cannot be read ({error.strerror or one_line(error)}).")

        with ThreadPoolExecutor(_REMOTE_READS) as pool:
            items = map(item, self.names) if is_local(files) else pool.map(item, self.names)
            while batch := list(islice(items, size)):
                yield batch


@dataclass(frozen=True)
class RowGroup:
    """A row group of a Parquet file: its encoded images, with the columns label and id or file if they exist."""

    number: int
    name: str
    group: int
    first: int
    rows: int

    def __len__(self) -> int:
        return self.rows

    def read(self, source: str, size: int) -> Iterator[list[Item]]:
        """Yields the items in lists of this size. Raises DataError if the file has no column of images."""
        files, root = open_path(source)
        path = f"{root}/{self.name}".rstrip("/")
        with _parquet_errors(path), files.open(path) as stream:
            file = pq.ParquetFile(stream)
            wanted = [name for name in (_IMAGE, _LABEL, *_IDS) if name in file.schema_arrow.names]
            if _IMAGE not in wanted:
                raise DataError(f"{path} has no column '{_IMAGE}', which must hold encoded images.")
            row = self.first
            for batch in file.iter_batches(size, row_groups=[self.group], columns=wanted):
                yield [
                    _item(f"{self.name or path.rpartition('/')[2]}#{row + i}", values)
                    for i, values in enumerate(batch.to_pylist())
                ]
                row += batch.num_rows


Part = Files | RowGroup


def open_path(url: str) -> tuple[fsspec.AbstractFileSystem, str]:
    """Returns the file system and the path on it. Raises DataError if there is none for this URL."""
    try:
        files, root = fsspec.core.url_to_fs(url)
    except (ValueError, ImportError) as error:
        raise DataError(f"'{url}' cannot be opened: {one_line(error)}") from error
    return files, root.rstrip("/")


def absolute(url: str) -> str:
    """Returns a local path as an absolute one, since other processes may run in other folders."""
    return url if "://" in url else str(Path(url).absolute())


def is_local(files: fsspec.AbstractFileSystem) -> bool:
    return isinstance(files, LocalFileSystem)


def list_parts(source: str) -> list[Part]:
    """Returns the parts of a source: row groups if it contains Parquet files, else image files, sorted by name.

    Hidden files and documents are skipped. Raises DataError if there is no image.
    """
    files, root = open_path(source)
    if not files.exists(root):
        raise DataError(f"{source} does not exist.")
    found = [root] if files.isfile(root) else sorted(files.find(root))
    names = [path[len(root) :].lstrip("/") for path in found]
    tables = [name for name, path in zip(names, found, strict=True) if path.endswith(".parquet") and not _hidden(name)]
    parts: list[Part] = [*_row_groups(files, root, tables)] if tables else [*_file_parts(names)]
    if not parts and files.isfile(root):
        raise DataError(f"{source} is not a Parquet file. Give a Parquet file, or a folder of image files.")
    if not parts:
        raise DataError(f"{source} holds no image files and no Parquet files.")
    return parts


def fingerprint(parts: Sequence[Part]) -> str:
    """Returns a hash of the names and the division of the images."""
    return hashlib.sha256(repr(parts).encode(errors="surrogateescape")).hexdigest()


def _item(place: str, values: dict[str, object]) -> Item:
    """Returns the item of a row; place is its id if the file has no column of ids."""
    image, label = values[_IMAGE], values.get(_LABEL)
    content = image.get("bytes") if isinstance(image, dict) else image  # Hugging Face: {"bytes", "path"}
    return Item(
        next((str(values[key]) for key in _IDS if values.get(key) is not None), place),
        label if isinstance(label, str | int) else None,
        content if isinstance(content, bytes) else "The row holds no encoded image.",
    )


def _file_parts(names: Sequence[str]) -> Iterator[Files]:
    images = [name for name in names if name and not _hidden(name) and not is_document(Path(name))]
    for number, start in enumerate(range(0, len(images), PART_IMAGES)):
        yield Files(number, tuple(images[start : start + PART_IMAGES]))


def _row_groups(files: fsspec.AbstractFileSystem, root: str, names: Sequence[str]) -> Iterator[RowGroup]:
    number = 0
    for name in names:
        first = 0
        path = f"{root}/{name}".rstrip("/")
        with _parquet_errors(path), files.open(path) as stream:
            metadata = pq.ParquetFile(stream).metadata
            for group in range(metadata.num_row_groups):
                rows = metadata.row_group(group).num_rows
                yield RowGroup(number, name, group, first, rows)
                number, first = number + 1, first + rows


@contextmanager
def _parquet_errors(name: str) -> Iterator[None]:
    try:
        yield
    except (ArrowException, OSError) as error:
        raise DataError(f"{name} cannot be read as Parquet ({one_line(error)}).") from error


def _hidden(name: str) -> bool:
    return any(map(is_hidden, name.split("/")))
