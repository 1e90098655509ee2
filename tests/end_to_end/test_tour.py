"""Executes the notebook as Jupyter does."""

from pathlib import Path

import nbclient
import nbformat
import pytest

from tests.support.service_process import REPOSITORY, environment

pytestmark = pytest.mark.slow


def test_every_cell_of_the_tour_runs(tmp_path: Path) -> None:
    tour = nbformat.read(REPOSITORY / "docs/tour.ipynb", 4)  # type: ignore[no-untyped-call]
    notebook = nbclient.NotebookClient(tour, timeout=300, resources={"metadata": {"path": str(REPOSITORY / "docs")}})
    notebook.execute(env=environment() | {"TMPDIR": str(tmp_path)})
    printed = [output.get("text", "") for cell in tour.cells for output in cell.get("outputs", [])]
    (evaluated,) = (text for text in printed if text.startswith("accuracy 9"))
    assert "on 1797 images" in evaluated
