"""Bundles with further variants, and bundles that are damaged in one way."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from schemas.bundle import MANIFEST_FILE, hash_file, open_bundle
from schemas.manifest import ModelManifest
from tests.support.bundles import colour_model, write_bundle


def change_manifest(bundle: Path, change: Callable[[dict[str, Any]], None]) -> None:
    file = bundle / MANIFEST_FILE
    manifest = json.loads(file.read_text())
    change(manifest)
    file.write_text(json.dumps(manifest))


def add_variant(bundle: Path, name: str, scale: float = 20.0) -> None:
    """Adds a variant with the right hash. With a scale other than the bundle's, it fails the golden samples."""
    model = bundle / f"model.{name}.onnx"
    model.write_bytes(colour_model(scale))

    def add(manifest: dict[str, Any]) -> None:
        entry = hash_file(model, bundle).model_dump()
        manifest["variants"].append(manifest["variants"][0] | {"name": name} | entry)

    change_manifest(bundle, add)


def flip_byte(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def alter_golden(bundle: Path) -> None:
    """Changes an expected probability and its hash, so that only the golden check detects it."""
    rows = expected_rows(bundle)
    rows[1] = [1.0, 0.0, 0.0]
    write_expected(bundle, json.dumps(rows))


def expected_rows(bundle: Path) -> list[list[float]]:
    rows: list[list[float]] = json.loads((bundle / "golden" / "expected.json").read_text())
    return rows


def write_expected(bundle: Path, text: str) -> None:
    """Replaces golden/expected.json and its hash in the manifest, which hides the change from the hash check."""
    expected = bundle / "golden" / "expected.json"
    expected.write_text(text)
    entry = hash_file(expected, bundle).model_dump()
    change_manifest(bundle, lambda manifest: manifest["golden"]["expected"].update(entry))


def manifest_with(variants: Sequence[str]) -> ModelManifest:
    with TemporaryDirectory() as folder:
        bundle = write_bundle(Path(folder))
        for name in variants:
            if name != "fp32":
                add_variant(bundle, name)
        return open_bundle(bundle).manifest
