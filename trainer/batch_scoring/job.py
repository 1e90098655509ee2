"""A scoring job: a bundle, a source of images, and a folder that gets one Parquet file per part of the source.

A part's file appears whole or not at all, so the same command continues a job that was interrupted.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from schemas.bundle import open_bundle
from schemas.errors import ImageError
from schemas.files import atomic_write
from schemas.image import Pixels
from schemas.manifest import VariantName
from trainer.batch_scoring.source import Item, Part, fingerprint, is_local, open_path
from trainer.data.photo import decode_photo
from trainer.errors import DataError, one_line
from trainer.evaluation.onnx_session import BATCH
from trainer.evaluation.scoring import BundleModel, open_model

PLAN = "_job.json"  # readers of Parquet folders skip names that start with an underscore
SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("label", pa.string()),
        ("prediction", pa.string()),
        ("probability", pa.float32()),
        ("error", pa.string()),
    ]
)


@dataclass(frozen=True)
class Job:
    """source and out are fsspec paths. Every machine that works on the job must see them, and the bundle."""

    bundle: Path
    variant: VariantName
    source: str
    out: str

    def begin(self, parts: Sequence[Part]) -> list[Part]:
        """Returns the parts that are not finished. Raises DataError if the folder belongs to another job."""
        files, root = open_path(self.out)
        source_files, source = open_path(self.source)
        if files == source_files and f"{root}/".startswith(f"{source}/"):
            raise DataError(f"{self.out} is in the source, so the next run would read it. Choose another folder.")
        plan = json.dumps(self._plan(parts), indent=2).encode()
        try:
            files.makedirs(root, exist_ok=True)
            names = {path.rpartition("/")[2] for path in files.ls(root, detail=False, refresh=True)}
            if PLAN not in names:
                if any(name.endswith(".parquet") for name in names):
                    raise DataError(f"{self.out} holds other Parquet files. Choose an empty folder.")
                write_whole(self.out, PLAN, plan)
            elif files.cat_file(f"{root}/{PLAN}") != plan:
                raise DataError(
                    f"{self.out} holds the scores of another job: the bundle, the variant or the images differ. "
                    "Choose another folder, or remove this one."
                )
        except OSError as error:
            raise DataError(
                f"{self.out} cannot be written ({error.strerror or one_line(error)}). Choose another folder."
            ) from error
        return [part for part in parts if file_name(part) not in names]

    def _plan(self, parts: Sequence[Part]) -> dict[str, object]:
        model = self.model()
        entry = model.manifest.variant(self.variant)
        assert entry is not None  # noqa: S101 - open_model checked it
        return {
            "model": model.manifest.name,
            "version": model.manifest.version,
            "variant": self.variant,
            "sha256": entry.sha256,
            "source": self.source,
            "images": sum(map(len, parts)),
            "parts": len(parts),
            "fingerprint": fingerprint(parts),
        }

    def model(self) -> BundleModel:
        return _open(self.bundle, self.variant)


@dataclass(frozen=True)
class Scored:
    """The outcome of a part."""

    images: int
    unreadable: int


def score_part(job: Job, part: Part) -> Scored:
    """Scores a part and writes its file. Raises DataError if the part cannot be read."""
    model = job.model()
    tables = [_answer(model, items) for items in part.read(job.source, BATCH)]
    table = pa.concat_tables(tables) if tables else SCHEMA.empty_table()
    content = io.BytesIO()
    pq.write_table(table, content, compression="zstd")
    write_whole(job.out, file_name(part), content.getvalue())
    return Scored(table.num_rows, table.num_rows - table["error"].null_count)


def file_name(part: Part) -> str:
    return f"part-{part.number:06d}.parquet"


def write_whole(folder: str, name: str, content: bytes) -> None:
    """Writes a file that other processes see whole or not at all."""
    files, root = open_path(folder)
    if is_local(files):
        atomic_write(Path(root, name), content)
    else:
        files.pipe_file(f"{root}/.{name}", content)
        files.mv(f"{root}/.{name}", f"{root}/{name}")


@lru_cache(maxsize=1)
def _open(bundle: Path, variant: VariantName) -> BundleModel:
    """Opens the model once per process, and checks that this machine computes it correctly."""
    model = open_model(bundle, variant)
    opened = open_bundle(model.path)
    entry = opened.manifest.variant(variant)
    assert entry is not None  # noqa: S101 - open_model checked it
    opened.check_golden(entry, lambda images: model.onnx.run(images)[0])
    return model


def _answer(model: BundleModel, items: Sequence[Item]) -> pa.Table:
    decoded = [_decode(model, item.content) for item in items]
    images = [image for image in decoded if not isinstance(image, str)]
    answers = iter(model.onnx.run(np.stack(images))[0]) if images else iter([])
    labels = model.manifest.labels
    rows = []
    for item, image in zip(items, decoded, strict=True):
        row: dict[str, object] = {"id": item.id, "label": _label(item.label, labels)}
        if isinstance(image, str):
            row["error"] = image
        else:
            probabilities = next(answers)
            best = int(probabilities.argmax())
            row |= {"prediction": labels[best], "probability": float(probabilities[best])}
        rows.append(row)
    return pa.Table.from_pylist(rows, SCHEMA)


def _decode(model: BundleModel, content: bytes | str) -> Pixels | str:
    """Returns the pixels, or the reason why there are none."""
    if isinstance(content, str):
        return content
    try:
        return decode_photo(content, model.manifest.input)
    except ImageError as error:
        return str(error)


def _label(label: str | int | None, labels: Sequence[str]) -> str | None:
    """Returns the name of a class of the model; None for another."""
    if isinstance(label, int):
        return labels[label] if 0 <= label < len(labels) else None
    return label if label in labels else None
