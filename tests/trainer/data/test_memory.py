"""A data set larger than the memory that a run may have: decoded, hashed, divided and trained."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.bundles import solid

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent.parent
SIDE, FILES = 256, 3000  # 590 MB decoded
ALLOWED = 150 * 2**20  # bytes more than a run over few images needed

RUN = f"""
import resource, sys
from pathlib import Path
import torch
from schemas.manifest import InputSpec
from tests.support import colour_images
from trainer.data.folder import FolderSource
from trainer.training.loop import fit
from trainer.training.progress import LineReporter
from trainer.recipe import DataConfig, Source
from trainer.models.build import build_network
from trainer.data.split import split

torch.set_num_threads(1)
spec = InputSpec(height={SIDE}, width={SIDE}, channels=3)

def run(photos):
    config = DataConfig(source=Source.FOLDER, validation=0.1, test=0.1)
    recipe = colour_images.recipe(epochs=1, validation_batch_size=16, max_seconds=1.0, data=config)
    data = split(FolderSource(Path(photos), spec).load(), recipe.data)
    fit(build_network(recipe, data), data, recipe, torch.device("cpu"), LineReporter(sys.stderr))
    return len(data.train)

run(sys.argv[1])
used = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (used + {ALLOWED}, used + {ALLOWED}))
print(run(sys.argv[2]))
"""


def write_photos(folder: Path, count: int) -> Path:
    for colour in ("red", "blue"):
        (folder / colour).mkdir(parents=True)
        first = folder / colour / "0.png"
        first.write_bytes(solid(colour))
        for i in range(1, count // 2):
            (folder / colour / f"{i}.png").hardlink_to(first)
    return folder


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's private memory alone")
def test_a_data_set_larger_than_memory_trains(tmp_path: Path) -> None:
    few, many = write_photos(tmp_path / "few", 200), write_photos(tmp_path / "many", FILES)
    command = [sys.executable, "-c", RUN, str(few), str(many)]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert int(ended.stdout) == FILES * 0.8
