"""A folder of class-named folders of photos, of any sizes and formats: photos/<class>/.../<file>.

Folders named train, val and test that hold the class-named folders are published splits.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

from schemas.errors import ImageError
from schemas.ignored_files import is_hidden
from schemas.image import Pixels
from schemas.manifest import InputSpec
from trainer.data.dataset import SourceData
from trainer.data.decode_cache import Decoded, Decoding, EntryWriter, Unreadable, decode_once
from trainer.data.photo import decode_photo, is_document
from trainer.data.progress_bar import tracked
from trainer.errors import DataError
from trainer.files import find_files, why_not_a_file

_SHOWN = 10
_WINDOW_BYTES = 64 * 2**20  # of decoded images that wait to be written
_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
_SEGMENTATION_NAMES = {"images", "image", "imgs", "masks", "mask", "labels", "annotations"}


class _File(NamedTuple):
    path: Path
    part: str
    label: int


@dataclass(frozen=True)
class FolderSource:
    """Every file below a class's folder is an image, except hidden files, documents and what operating systems leave.

    An unreadable file stops the run before training, with its reason; skip_bad leaves it out instead. cache is the
    folder for decoded images (None: the usual one). known are the classes of a model that is evaluated on the photos:
    a folder of another name is refused then, and a class may lack photos.
    """

    folder: Path
    input: InputSpec
    skip_bad: bool = False
    cache: Path | None = None
    known: tuple[str, ...] = ()

    def check(self) -> None:
        """Raises DataError unless the folder holds class-named folders."""
        self._classes(self._parts())

    def resized(self, size: InputSpec) -> Self:
        return replace(self, input=size)

    def load(self) -> SourceData:
        """Raises DataError."""
        parts = self._parts()
        classes = self._classes(parts)
        files, bad, documents = self._find(parts, classes)
        settings = {"input": self.input.model_dump(mode="json")}
        code = (__name__, "trainer.data.photo")
        decoding = Decoding("folder", self.folder, [file.path for file in files], settings, code, classes)
        entry = decode_once(decoding, self.cache, partial(self._decode, files))
        count = len(files) + len(bad)
        bad = sorted([*bad, *entry.unreadable], key=lambda one: one.file)
        if bad and not self.skip_bad:
            raise DataError(
                f"{len(bad)} of {count:,} files cannot be used. Repair or remove them, or leave them "
                f"out with --skip-bad: {_listed(bad)}"
            )
        read = entry.parts
        size = f"{self.input.height}x{self.input.width} ({self.input.resize})"
        notes = [
            f"{sum(map(len, read.values())):,} images of {len(classes)} classes below {self.folder}, resized to {size}"
        ]
        if documents:
            notes.append(f"left out {len(documents)} files that are not photos by their names: {documents[0]}, ...")
        if bad:
            notes.append(f"left out {len(bad)} unreadable files: {_listed(bad)}")
        notes += entry.notes
        name = self.folder.resolve().name
        return SourceData(
            name, classes, self.input, read["train"], read.get("test"), tuple(notes), read.get("validation")
        )

    def _parts(self) -> dict[str, Path]:
        """Returns the folder of each split; without published splits, the folder itself for training."""
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is not a folder. Give the folder of class-named folders with --data.")
        names = _subfolders(self.folder)
        splits = {_SPLIT_NAMES[name.lower()]: self.folder / name for name in names if name.lower() in _SPLIT_NAMES}
        if len(splits) == len(names) and "train" in splits and all(_subfolders(path) for path in splits.values()):
            return splits
        return {"train": self.folder}

    def _classes(self, parts: dict[str, Path]) -> tuple[str, ...]:
        """Raises DataError for fewer than two classes, and for folders that are not classes."""
        names = tuple(sorted({name for folder in parts.values() for name in _subfolders(folder)}))
        if self.known:
            unknown = [name for name in names if name not in self.known]
            if unknown or not names:
                raise DataError(
                    f"{self.folder} must hold folders named after the model's labels ({_shown(self.known)})"
                    f"{f', not {_shown(unknown)}' if unknown else ''}."
                )
        elif len(names) < 2:
            hint = f" Did you mean {self.folder / names[0]}?" if names and _subfolders(self.folder / names[0]) else ""
            raise DataError(
                f"{self.folder} must hold a folder for each of two or more classes, not {len(names)}.{hint}"
            )
        elif {name.lower() for name in names} <= _SEGMENTATION_NAMES:
            raise DataError(
                f"The folders {_shown(names)} of {self.folder} look like parts of one data set, not like classes. Put "
                "the images of each class into a folder of its name."
            )
        return names

    def _find(self, parts: dict[str, Path], classes: Sequence[str]) -> tuple[list[_File], list[Unreadable], list[str]]:
        """Returns the files, whatever is not a file with the reason, and the documents.

        Raises DataError for a class without photos.
        """
        files: list[_File] = []
        documents: list[str] = []
        # a link to nothing may have been a whole class
        lost = [entry for entry in self.folder.iterdir() if not (is_hidden(entry.name) or entry.exists())]
        refused = {entry: why for entry in lost if (why := why_not_a_file(entry))}
        for part, folder in parts.items():
            for label, name in enumerate(classes):
                found, not_files = find_files(folder / name) if (folder / name).exists() else ([], {})
                photos = [path for path in found if not is_document(path)]
                documents += [self._shown(path) for path in found if is_document(path)]
                files += [_File(path, part, label) for path in photos]
                refused |= not_files
                if not photos and part == "train" and not self.known and not not_files:
                    raise DataError(f"The folder {folder / name} holds no photos. Add some, or remove the folder.")
        bad = [Unreadable(file=self._shown(path), reason=reason) for path, reason in refused.items()]
        if not files:
            raise DataError(f"The folders of {self.folder} hold no files{f': {_listed(bad)}' if bad else ''}.")
        return files, bad, documents

    def _decode(self, files: Sequence[_File], writer: EntryWriter) -> Decoded:
        bad = []
        for name in dict.fromkeys(file.part for file in files):
            chosen = [file for file in files if file.part == name]
            with writer.part(name, self.input.shape) as part:
                images = tracked(self._images([file.path for file in chosen]), "decoding", len(chosen))
                for file, image in zip(chosen, images, strict=True):
                    if isinstance(image, str):
                        bad.append(Unreadable(file=self._shown(file.path), reason=image))
                    else:
                        part.append([image])
                        part.label([file.label], [os.fsencode(file.path.relative_to(self.folder).as_posix())])
                if not len(part):
                    raise DataError(f"No {name} file below {self.folder} is an image: {_listed(bad)}")
        return Decoded(unreadable=tuple(bad))

    def _images(self, files: Sequence[Path]) -> Iterator[Pixels | str]:
        """Decodes in threads, as Pillow releases the GIL, and in windows, so that any number of files fits."""
        threads = os.cpu_count() or 1
        window = max(4 * threads, _WINDOW_BYTES // (self.input.height * self.input.width * self.input.channels))
        with ThreadPoolExecutor(max_workers=threads) as pool:
            for start in range(0, len(files), window):
                yield from pool.map(self._decode_one, files[start : start + window])

    def _decode_one(self, file: Path) -> Pixels | str:
        """Returns the pixels, or the reason why there are none."""
        try:
            content = file.read_bytes()
            return decode_photo(content, self.input) if content else "The file is empty."
        except ImageError as error:
            return str(error)
        except OSError as error:
            return f"The file cannot be read ({error.strerror})."

    def _shown(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix().encode(errors="replace").decode()


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def _listed(bad: Sequence[Unreadable]) -> str:
    listed = "; ".join(f"{one.file}: {one.reason.rstrip('.')}" for one in bad[:_SHOWN])
    return listed + (f" ... and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
