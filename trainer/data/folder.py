"""A folder of class-named folders of photos, of any sizes and formats: photos/<class>/.../<file>.

Folders named train, val and test that hold the class-named folders are published splits.
"""

import mimetypes
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from schemas.ignored_files import is_hidden
from trainer.data.csv import part_of_name
from trainer.data.decode_cache import Unreadable
from trainer.data.photo import is_document
from trainer.data.photo_files import Listing, PhotoFile, PhotoSource, listed, shown
from trainer.errors import DataError
from trainer.files import find_files, why_not_a_file

_SHOWN = 10
_IMAGES = {"images", "image", "imgs", "img", "jpegimages"}
_TARGETS = {"masks", "mask", "labels", "label", "annotations", "annotation", "segmentations", "segmentation", "edges"}


@dataclass(frozen=True)
class FolderSource(PhotoSource):
    """Every file below a class's folder is an image, except hidden files, documents and what operating systems leave.

    known are the classes of a model that is evaluated on the photos: a folder of another name is refused then, and a
    class may lack photos.
    """

    known: tuple[str, ...] = ()

    def listing(self) -> Listing:
        parts = self._parts()
        return self._find(parts, self._classes(parts))

    def _parts(self) -> dict[str, Path]:
        """Returns the folder of each split; without published splits, the folder itself for training."""
        if not self.folder.is_dir():
            raise DataError(f"{self.folder} is not a folder. Give the folder of class-named folders with --data.")
        names = _subfolders(self.folder)
        splits = {part: self.folder / name for name in names if (part := part_of_name(Path(name)))}
        if len(splits) == len(names) and "train" in splits:
            if all(_subfolders(path) for path in splits.values()):
                return splits
            if len(names) > 1 and not any(_subfolders(path) for path in splits.values()):
                raise DataError(
                    f"The folders {_shown(names)} of {self.folder} are splits without classes. Put the images of each "
                    f"class into a folder of its name, as in {splits['train'].name}/cat."
                )
        if "train" in splits and (classes := set(_subfolders(splits["train"]))):
            for name in names:
                found = set(_subfolders(self.folder / name))
                if found & classes if part_of_name(Path(name)) is None else not found:
                    raise DataError(
                        f"{splits['train']} is the training split, but {self.folder / name} is no split: "
                        f"{'it has no folders of classes' if not found else 'its name is not val or test'}. "
                        f"Change that, or give {splits['train']} with --data."
                    )
        return {"train": self.folder}

    def _classes(self, parts: dict[str, Path]) -> tuple[str, ...]:
        """Raises DataError for fewer than two classes, and for folders that are not classes."""
        names = tuple(sorted({name for folder in parts.values() for name in _subfolders(folder)}))
        for name in names:
            if not name.isprintable():
                shown_name = name.encode("ascii", "backslashreplace").decode()
                raise DataError(
                    f"The name of the folder '{shown_name}' in {self.folder} is not UTF-8, or has control characters. "
                    "Rename it: the name becomes a label."
                )
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
        elif _are_parts_of_one(names):
            raise DataError(
                f"The folders {_shown(names)} of {self.folder} look like parts of one data set, not like classes. Put "
                "the images of each class into a folder of its name."
            )
        return names

    def _find(self, parts: dict[str, Path], classes: tuple[str, ...]) -> Listing:
        """Raises DataError for a class without photos."""
        files: list[PhotoFile] = []
        documents: list[str] = []
        # a link to nothing may have been a whole class
        lost = [entry for entry in self.folder.iterdir() if not (is_hidden(entry.name) or entry.exists())]
        refused = {entry: why for entry in lost if (why := why_not_a_file(entry))}
        for part, folder in parts.items():
            for label, name in enumerate(classes):
                found, not_files = find_files(folder / name) if (folder / name).exists() else ([], {})
                photos = [path for path in found if not is_document(path)]
                documents += [shown(path, self.folder) for path in found if is_document(path)]
                files += [PhotoFile(path, part, label) for path in photos]
                refused |= not_files
                if not photos and part == "train" and not self.known and not not_files:
                    if not (folder / name).exists():
                        raise DataError(f"{folder / name} is missing, but another split has the class. Add it.")
                    raise DataError(f"The folder {folder / name} holds no photos. Add some, or remove the folder.")
        bad = [Unreadable(file=shown(path, self.folder), reason=reason) for path, reason in refused.items()]
        if not files:
            raise DataError(f"The folders of {self.folder} hold no files{f': {listed(bad)}' if bad else ''}.")
        left_out = [
            f"left out {len(documents)} files that are not photos by their names: {name}, ..." for name in documents[:1]
        ]
        stray = [each.name for each in sorted(self.folder.iterdir()) if each.is_file() and _is_photo_by_name(each)]
        left_out += [
            f"left out {len(stray)} photos beside the folders of the classes: {name}, ..." for name in stray[:1]
        ]
        return Listing(files, classes, bad, [*left_out, *_splits_within(parts["train"], classes)])


def _are_parts_of_one(names: Sequence[str]) -> bool:
    """Whether the folders hold images and what belongs to each of them, as for segmentation and detection."""
    words = [set(re.split(r"[^a-z]+", name.lower())) for name in names]
    found = [bool(each & _IMAGES) for each in words]
    return any(found) and not all(found) and all(each & (_IMAGES | _TARGETS) for each in words)


def _splits_within(folder: Path, classes: Sequence[str]) -> list[str]:
    """Returns a sentence if each class has folders named as splits, whose photos are read as one."""
    folders = [folder / name for name in classes if (folder / name).is_dir()]  # a known class may lack photos
    within = [{name for name in _subfolders(each) if part_of_name(Path(name))} for each in folders]
    shared = sorted(set.intersection(*within)) if within else []
    if len(shared) < 2:
        return []
    return [
        f"warning: the folders {_shown(shared)} inside the class folders are not used as splits. To use them, put "
        f"the class folders into them, as in {shared[0]}/{classes[0]}."
    ]


def _is_photo_by_name(file: Path) -> bool:
    return not is_hidden(file.name) and (mimetypes.guess_type(file.name)[0] or "").startswith("image/")


def _subfolders(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name))


def _shown(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
