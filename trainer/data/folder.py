"""A folder of class-named folders of photos, of any sizes and formats: photos/<class>/.../<file>."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from schemas.errors import ImageError
from schemas.image import Pixels, decode_image
from schemas.manifest import InputSpec
from trainer.data.source import LabelledImages, SourceData
from trainer.errors import DataError

_SHOWN = 10


@dataclass(frozen=True)
class FolderSource:
    """Every file below a class's folder is taken for an image; hidden ones are passed over.

    An unreadable file stops the run before training, with its reason; skip_bad leaves it out instead.
    """

    folder: Path
    input: InputSpec
    skip_bad: bool = False

    def load(self) -> SourceData:
        """Raises DataError."""
        classes = _classes(self.folder)
        files = [(file, index) for index, name in enumerate(classes) for file in _files(self.folder / name)]
        if not files:
            raise DataError(f"The folders of {self.folder} hold no files.")
        decoded = self._decode([file for file, _ in files])
        bad = [(file, image) for (file, _), image in zip(files, decoded, strict=True) if isinstance(image, str)]
        if bad and not self.skip_bad:
            raise DataError(
                f"{len(bad)} of {len(files):,} files cannot be used; mend or remove them, or leave them out with "
                f"--skip-bad: {self._listed(bad)}"
            )
        good = [(image, index) for (_, index), image in zip(files, decoded, strict=True) if not isinstance(image, str)]
        if not good:
            raise DataError(f"No file below {self.folder} is an image.")
        images = LabelledImages(np.stack([image for image, _ in good]), np.array([index for _, index in good]))
        told = [f"{len(good):,} images of {len(classes)} classes below {self.folder}, resized to {self._size()}"]
        told += [f"left out {len(bad)} unreadable files: {self._listed(bad)}"] if bad else []
        return SourceData(_name(self.folder), classes, self.input, images, None, tuple(told))

    def _decode(self, files: Sequence[Path]) -> list[Pixels | str]:
        """In threads, for Pillow lets others run while it decodes."""
        with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            results = pool.map(self._decode_one, files)
            return list(track(results, "decoding", total=len(files), transient=True, disable=not os.isatty(2)))

    def _decode_one(self, file: Path) -> Pixels | str:
        """The pixels, or why there are none."""
        try:
            return decode_image(file.read_bytes(), self.input)
        except ImageError as error:
            return str(error)
        except OSError as error:
            return f"The file cannot be read ({error.strerror})."

    def _listed(self, bad: Sequence[tuple[Path, object]]) -> str:
        listed = "; ".join(f"{file.relative_to(self.folder)}: {reason}" for file, reason in bad[:_SHOWN])
        return listed + (f" ... and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")

    def _size(self) -> str:
        return f"{self.input.height}x{self.input.width} ({self.input.resize})"


def _classes(folder: Path) -> tuple[str, ...]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give the folder of class-named folders with --data.")
    names = tuple(sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")))
    if len(names) < 2:  # noqa: PLR2004 - there is nothing to tell apart
        raise DataError(f"{folder} must hold a folder for each of two or more classes, not {len(names)}.")
    return names


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))


def _name(folder: Path) -> str:
    return folder.resolve().name
