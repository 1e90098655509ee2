"""Photo files of any sizes and formats, wherever they are listed: decoded once, and checked before training."""

import math
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, Self

from pydantic import JsonValue

from schemas.errors import ImageError
from schemas.image import Pixels
from schemas.manifest import InputSpec
from schemas.value_range import shown_range
from trainer.data.dataset import SourceData, data_name
from trainer.data.decode_cache import Decoded, Decoding, EntryWriter, Unreadable, decode_once
from trainer.data.photo import decode_photo
from trainer.data.progress_bar import tracked
from trainer.data.wide_tiff import range_of, wide_tiffs
from trainer.errors import DataError

_SHOWN = 10
_WINDOW_BYTES = 64 * 2**20  # of decoded images that wait to be written


class PhotoFile(NamedTuple):
    """part is train, validation or test; label is an index of the classes."""

    path: Path
    part: str
    label: int


@dataclass(frozen=True)
class Listing:
    """The photos of a data set below its folder.

    bad are entries that are not files, notes are sentences for the user, and tables are the files that name the labels.
    """

    files: Sequence[PhotoFile]
    classes: tuple[str, ...]
    bad: Sequence[Unreadable] = ()
    notes: Sequence[str] = ()
    tables: Sequence[Path] = ()


@dataclass(frozen=True)
class PhotoSource:
    """Photos below a folder; subclasses find them.

    An unreadable file stops the run before training, with its reason; skip_bad leaves it out instead. cache is the
    folder for decoded images (None: the usual one). If input has no value_range, that of 32-bit TIFF files is detected.
    exclude has the names of files that are not read.
    """

    folder: Path
    input: InputSpec
    skip_bad: bool = False
    cache: Path | None = None
    exclude: frozenset[str] = field(default=frozenset(), kw_only=True)

    @property
    def kind(self) -> str:
        return "folder"

    @property
    def name(self) -> str:
        return data_name(self.folder)

    @property
    def settings(self) -> dict[str, JsonValue]:
        """What the decoded images depend on, besides the files."""
        return {"input": self.input.model_dump(mode="json")}

    @property
    def code(self) -> tuple[str, ...]:
        """The modules that find and decode the photos."""
        return (
            type(self).__module__,
            __name__,
            "trainer.data.photo",
            "trainer.data.wide_tiff",
            "trainer.data.pixel_range",
        )

    def check(self) -> None:
        """Raises DataError if the photos cannot be listed."""
        self.listing()

    def listing(self) -> Listing:
        """Raises DataError."""
        raise NotImplementedError

    def shape(self) -> tuple[int, int, int]:
        return self.input.shape

    def resized(self, size: InputSpec) -> Self:
        return replace(self, input=size)

    def load(self) -> SourceData:
        """Raises DataError."""
        listing = self.listing()
        files = [file for file in listing.files if shown(file.path, self.folder) not in self.exclude]
        classes, bad = listing.classes, [one for one in listing.bad if one.file not in self.exclude]
        paths = [*dict.fromkeys(file.path for file in files), *listing.tables]
        decoding = Decoding(self.kind, self.folder, paths, self.settings, self.code, classes)
        entry = decode_once(decoding, self.cache, partial(self._decode, files))
        count = len(files) + len(bad)
        bad = sorted([*bad, *entry.unreadable], key=lambda one: one.file)
        if bad and not self.skip_bad:
            raise DataError(
                f"{len(bad)} of {count:,} files cannot be used. Repair or remove them, or leave them "
                f"out with --skip-bad: {listed(bad)}"
            )
        read = entry.parts
        size = f"{self.input.height}x{self.input.width} ({self.input.resize})"
        notes = [
            f"{sum(map(len, read.values())):,} images of {len(classes)} classes below {self.folder}, resized to {size}"
        ]
        notes += listing.notes
        if self.exclude:
            excluded = len(listing.files) + len(listing.bad) - count
            notes.append(f"left out {excluded:,} files, of {len(self.exclude):,} that --exclude names")
        if bad:
            notes.append(f"left out {len(bad)} unreadable files: {listed(bad)}")
        notes += entry.notes
        return SourceData(
            self.name,
            classes,
            self.input.model_copy(update={"value_range": entry.value_range}),
            read["train"],
            read.get("test"),
            tuple(notes),
            read.get("validation"),
            tuple((one.file, one.reason) for one in bad),
        )

    def _decode(self, files: Sequence[PhotoFile], writer: EntryWriter) -> Decoded:
        spec, bad, notes = self.input, [], []
        wide = wide_tiffs([file.path for file in files])
        if wide:
            value_range = spec.value_range or range_of(wide)
            spec = spec.model_copy(update={"value_range": value_range})
            notes = [f"{len(wide):,} 32-bit TIFF files, values {shown_range(value_range)}"]
        for name in dict.fromkeys(file.part for file in files):
            chosen = [file for file in files if file.part == name]
            with writer.part(name, spec.shape) as part:
                images = tracked(_images([file.path for file in chosen], spec), "decoding", len(chosen))
                for file, image in zip(chosen, images, strict=True):
                    if isinstance(image, str):
                        bad.append(Unreadable(file=shown(file.path, self.folder), reason=image))
                    else:
                        part.append([image])
                        part.label([file.label], [os.fsencode(file.path.relative_to(self.folder).as_posix())])
                if not len(part):
                    raise DataError(f"No {name} file below {self.folder} is an image: {listed(bad)}")
        return Decoded(notes=tuple(notes), unreadable=tuple(bad), value_range=spec.value_range)


def _images(files: Sequence[Path], spec: InputSpec) -> Iterator[Pixels | str]:
    """Decodes in threads, as Pillow releases the GIL, and in windows, so that any number of files fits."""
    threads = os.cpu_count() or 1
    window = max(4 * threads, _WINDOW_BYTES // math.prod(spec.shape))
    with ThreadPoolExecutor(max_workers=threads) as pool:
        for start in range(0, len(files), window):
            yield from pool.map(partial(_decode_one, spec), files[start : start + window])


def _decode_one(spec: InputSpec, file: Path) -> Pixels | str:
    """Returns the pixels, or the reason why there are none."""
    try:
        return decode_photo(file.read_bytes(), spec)
    except ImageError as error:
        return str(error)
    except OSError as error:
        return f"The file cannot be read ({error.strerror})."


def shown(path: Path, folder: Path) -> str:
    return path.relative_to(folder).as_posix().encode(errors="replace").decode()


def listed(bad: Sequence[Unreadable]) -> str:
    listed = "; ".join(f"{one.file}: {one.reason.rstrip('.')}" for one in bad[:_SHOWN])
    return listed + (f" ... and {len(bad) - _SHOWN} more" if len(bad) > _SHOWN else "")
