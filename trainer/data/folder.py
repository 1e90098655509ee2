"""A folder of class-named folders of photos, of any sizes and formats: photos/<class>/.../<file>."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from schemas.errors import ImageError
from schemas.ignored_files import is_hidden
from schemas.image import Pixels, decode_image
from schemas.manifest import InputSpec
from trainer.data.dataset import SourceData
from trainer.data.decode_cache import Decoded, Decoding, EntryWriter, Unreadable, decode_once
from trainer.data.progress_bar import tracked
from trainer.errors import DataError
from trainer.files import find_files, why_no_file

_SHOWN = 10
_WINDOW_BYTES = 64 * 2**20  # of decoded images that wait to be written


@dataclass(frozen=True)
class FolderSource:
    """Every file below a class's folder is taken for an image; hidden ones, and desktops' leavings, are passed over.

    An unreadable file stops the run before training, with its reason; skip_bad leaves it out instead. cache is the
    folder that decoded images are kept in, None the usual one. known are the classes of a model that is asked about
    the photos: a folder of another name is refused then, and they may lack classes, which training may not.
    """

    folder: Path
    input: InputSpec
    skip_bad: bool = False
    cache: Path | None = None
    known: tuple[str, ...] = ()

    def load(self) -> SourceData:
        """Raises DataError."""
        classes = _classes(self.folder, self.known)
        files, bad = self._find(classes)
        if not files:
            raise DataError(f"The folders of {self.folder} hold no files{f': {_listed(bad)}' if bad else ''}.")
        settings = {"input": self.input.model_dump(mode="json")}
        decoding = Decoding("folder", self.folder, [file for file, _ in files], settings, (__name__,), classes)
        entry = decode_once(decoding, self.cache, partial(self._decode, files))
        count = len(files) + len(bad)
        bad = sorted([*bad, *entry.unreadable], key=lambda one: one.file)
        if bad and not self.skip_bad:
            raise DataError(
                f"{len(bad)} of {count:,} files cannot be used; mend or remove them, or leave them "
                f"out with --skip-bad: {_listed(bad)}"
            )
        images = entry.parts["train"]
        size = f"{self.input.height}x{self.input.width} ({self.input.resize})"
        told = [f"{len(images):,} images of {len(classes)} classes below {self.folder}, resized to {size}"]
        if bad:
            told.append(f"left out {len(bad)} unreadable files: {_listed(bad)}")
        return SourceData(_name(self.folder), classes, self.input, images, None, (*told, *entry.told))

    def _find(self, classes: Sequence[str]) -> tuple[list[tuple[Path, int]], list[Unreadable]]:
        """The files with their class's index, and what is none: a link to nothing may have been a whole class."""
        files: list[tuple[Path, int]] = []
        lost = [entry for entry in self.folder.iterdir() if not (is_hidden(entry.name) or entry.exists())]
        refused = {entry: why for entry in lost if (why := why_no_file(entry))}
        for index, name in enumerate(classes):
            found, no_files = find_files(self.folder / name)
            files += [(file, index) for file in found]
            refused |= no_files
        return files, [self._unreadable(path, reason) for path, reason in refused.items()]

    def _decode(self, files: Sequence[tuple[Path, int]], writer: EntryWriter) -> Decoded:
        bad = []
        with writer.part("train", self.input.shape) as part:
            images = tracked(self._images([file for file, _ in files]), "decoding", len(files))
            for (file, index), image in zip(files, images, strict=True):
                if isinstance(image, str):
                    bad.append(self._unreadable(file, image))
                else:
                    part.append([image])
                    part.label([index], [os.fsencode(file.relative_to(self.folder).as_posix())])
            if not len(part):
                raise DataError(f"No file below {self.folder} is an image: {_listed(bad)}")
        return Decoded(unreadable=tuple(bad))

    def _images(self, files: Sequence[Path]) -> Iterator[Pixels | str]:
        """In threads, for Pillow lets others run while it decodes; some at a time, so that any number fits."""
        threads = os.cpu_count() or 1
        window = max(4 * threads, _WINDOW_BYTES // (self.input.height * self.input.width * self.input.channels))
        with ThreadPoolExecutor(max_workers=threads) as pool:
            for start in range(0, len(files), window):
                yield from pool.map(self._decode_one, files[start : start + window])

    def _decode_one(self, file: Path) -> Pixels | str:
        """The pixels, or why there are none."""
        try:
            content = file.read_bytes()
            return decode_image(content, self.input) if content else "The file is empty."
        except ImageError as error:
            return str(error)
        except OSError as error:
            return f"The file cannot be read ({error.strerror})."

    def _unreadable(self, path: Path, reason: str) -> Unreadable:
        shown = path.relative_to(self.folder).as_posix()
        return Unreadable(file=shown.encode(errors="replace").decode(), reason=reason)


def _and_more(names: Sequence[str]) -> str:
    if len(names) == 1:
        return ""
    more = ", ..." if len(names) > _SHOWN else ""
    return f", nor are {', '.join(names[1:_SHOWN])}{more}"


def _listed(bad: Sequence[Unreadable]) -> str:
    listed = "; ".join(f"{one.file}: {one.reason.rstrip('.')}" for one in bad[:_SHOWN])
    return listed + (f" ... and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")


def _classes(folder: Path, known: Sequence[str]) -> tuple[str, ...]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the folder of class-named folders with --data.")
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name)))
    if known and not names:
        raise DataError(f"{folder} must hold a folder for one or more of the classes {', '.join(known)}.")
    if len(names) < 2 and not known:
        raise DataError(f"{folder} must hold a folder for each of two or more classes, not {len(names)}.")
    unknown = [name for name in names if name not in known] if known else []
    if unknown:
        raise DataError(
            f"{folder / unknown[0]} is no class that the model knows{_and_more(unknown)}; its labels are "
            f"{', '.join(known)}."
        )
    return names


def _name(folder: Path) -> str:
    return folder.resolve().name
