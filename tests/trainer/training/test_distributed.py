"""Two real processes, started by torchrun, on CPUs."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from schemas.bundle import open_bundle
from tests.support import colour_images
from tests.support.recorder import CPU, Recorder
from tests.support.two_processes import prepare, take_step
from trainer.models.build import build_network
from trainer.recipe import TransferConfig
from trainer.training.distributed import World
from trainer.training.loop import fit

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent.parent
TORCHRUN = [sys.executable, "-m", "torch.distributed.run"]
ONE_NODE = ("--standalone", "--nproc-per-node=2")


def start(*arguments: str | Path, nodes: Sequence[str] = ONE_NODE) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [*TORCHRUN, *nodes, *map(str, arguments)]
    return subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def digits(folder: Path, *more: str) -> list[str | Path]:
    where: list[str | Path] = ["--artifacts", folder / "artifacts", "--runs", folder / "runs"]
    return ["-m", "trainer", "train", "digits", *where, *more]


@dataclass(frozen=True)
class RecordingWorld(World):
    """A process alone that records which parameters each data-parallel network synchronises."""

    synchronised: list[list[str]] = field(default_factory=list)

    def data_parallel(self, network: nn.Module) -> nn.Module:
        self.synchronised.append([name for name, value in network.named_parameters() if value.requires_grad])
        return network


@pytest.mark.parametrize(("head_epochs", "built"), [(0, 1), (2, 2)])
def test_the_data_parallel_network_is_built_once_for_each_set_of_trained_parameters(
    head_epochs: int, built: int
) -> None:
    transfer = TransferConfig(weights="unused", head_epochs=head_epochs)
    recipe = colour_images.recipe(epochs=4, transfer=transfer)
    data, world = colour_images.splits(recipe), RecordingWorld()
    fit(build_network(recipe, data), data, recipe, CPU, Recorder(), world=world)
    assert len(world.synchronised) == built
    assert len(world.synchronised[0]) == (2 if head_epochs else 10)
    assert len(world.synchronised[-1]) == 10


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("ranks")
    run = start("-m", "tests.support.two_processes", folder)
    _, errors = run.communicate()
    assert run.returncode == 0, errors
    return [load_file(folder / f"{rank}.safetensors") for rank in range(2)]


def test_parameters_are_equal_in_every_process(ranks: list[dict[str, torch.Tensor]]) -> None:
    first, second = ranks
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_gradients_are_those_of_one_process_with_the_whole_batch(ranks: list[dict[str, torch.Tensor]]) -> None:
    alone = take_step(prepare())
    assert any(name.startswith("gradient.") for name in alone)
    for name, value in alone.items():
        torch.testing.assert_close(ranks[0][name], value, rtol=1e-4, atol=1e-6)


def test_validation_counts_each_image_of_an_odd_split_once(ranks: list[dict[str, torch.Tensor]]) -> None:
    run = prepare()
    assert len(run.validation) % 2 == 1
    correct = ranks[0]["validation"][1].item() * len(run.validation)
    assert correct == pytest.approx(round(correct), abs=1e-6)
    assert correct == pytest.approx(take_step(run)["validation"][1].item() * len(run.validation))


def test_two_processes_write_one_bundle_and_print_each_line_once(tmp_path: Path) -> None:
    run = start(*digits(tmp_path, "--epochs", "6", "--checkpoint-seconds", "0"))
    out, errors = run.communicate()
    assert run.returncode == 0, errors
    assert len(re.findall(r"^Training digits on cpu .*, in 2 processes\.$", errors, re.MULTILINE)) == 1
    assert len(re.findall(r"^epoch 6/6 ", errors, re.MULTILINE)) == 1
    assert out.count("test accuracy") == 1
    assert {entry.name for entry in (tmp_path / "artifacts" / "digits").iterdir()} == {"1", "promoted.json"}
    assert [entry.name for entry in (tmp_path / "runs").iterdir()] == ["digits-1"]
    bundle = open_bundle(tmp_path / "artifacts" / "digits" / "1")
    assert bundle.manifest.metrics.test.accuracy > 0.8
    assert bundle.manifest.provenance.processes == 2
    assert ", in 2 processes; seed 0." in (bundle.path / "README.md").read_text(encoding="utf-8")


def test_two_nodes_train_one_network_and_the_first_writes_the_bundle(tmp_path: Path) -> None:
    """Each node is a torchrun of its own, with folders of its own."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = ("--master-addr=127.0.0.1", f"--master-port={probe.getsockname()[1]}")
    folders = [tmp_path / "first", tmp_path / "second"]
    runs = [
        start(
            *digits(folder, "--epochs", "6"), nodes=("--nnodes=2", f"--node-rank={rank}", "--nproc-per-node=1", *place)
        )
        for rank, folder in enumerate(folders)
    ]
    (out, errors), (_, others) = [run.communicate() for run in runs]
    assert [run.returncode for run in runs] == [0, 0], errors + others
    assert out.count("test accuracy") == 1
    bundle = open_bundle(folders[0] / "artifacts" / "digits" / "1")
    assert bundle.manifest.provenance.processes == 2
    assert bundle.manifest.metrics.test.accuracy > 0.8
    assert not list(folders[1].rglob("manifest.json"))


def test_a_killed_process_ends_the_run_with_one_message_and_the_run_can_be_resumed(tmp_path: Path) -> None:
    endless = digits(tmp_path, "--epochs", "12", "--checkpoint-seconds", "0", "--batch-size", "32")
    run = start(*endless)
    while not any(entry.name.isdigit() for entry in tmp_path.glob("runs/digits-1/*")):
        assert run.poll() is None
        time.sleep(0.01)
    os.kill(second_of(run.pid), signal.SIGKILL)
    _, errors = run.communicate()
    assert run.returncode != 0
    (message,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert re.search(r"nother process of th(e|is) run", message)  # its own, or the one of torchrun's signal
    assert "--resume" in message
    again = start(*endless, "--resume")
    _, errors = again.communicate()
    assert again.returncode == 0, errors
    assert "Resuming after step" in errors


def second_of(torchrun: int) -> int:
    """Returns the process id of rank 1."""
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(status.read_text().rsplit(")", 1)[1].split()[1])
            environment = (status.parent / "environ").read_bytes().split(b"\0")
        except (OSError, IndexError):
            continue  # it ended meanwhile
        if parent == torchrun and b"RANK=1" in environment:
            return int(status.parent.name)
    raise AssertionError("there is no rank 1")
