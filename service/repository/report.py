"""The files of a bundle's report that may be shown, and its model card."""

import os
from pathlib import Path

from schemas.bundle import MANIFEST_FILE
from service.repository.loader import Entry, Loaded

REPORT = "report"
MODEL_CARD = "README.md"


def report_files(entry: Entry) -> dict[str, Path]:
    """Returns the visible files of the version's report and its model card, by name.

    Files may be links, as in a cache of blobs. The report has no hashes and the bundle may be untrusted, so a link must
    lead into the bundle's folder, or into the folder that contains its verified files.
    """
    bundle = entry.ref.path
    verified = [MANIFEST_FILE] if entry.manifest else []
    if isinstance(entry, Loaded):
        verified.append(entry.model.choice.variant.file)
    homes = [bundle.resolve()]
    if verified:
        homes.append(Path(os.path.commonpath([(bundle / file).resolve().parent for file in verified])))
    try:
        found = [bundle / MODEL_CARD, *sorted((bundle / REPORT).iterdir())]
    except OSError:  # there is no report
        return {}
    return {
        path.name: path
        for path in found
        if path.is_file()
        and not path.name.startswith(".")
        and any(path.resolve().is_relative_to(home) for home in homes)
    }
