"""No record, settings or file that a command opens can end in a traceback or change a folder.

Three networks and critics of the smallest size are trained once. Every field of their records is
then replaced by every value that it should not have: all of them are read and shown in one process
(some 20,000), and a sample goes through the commands themselves. `make test-mutations` runs ten
thousand commands.
"""

import contextlib
import gc
import io
import json
import os
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from onelip.cli import main
from onelip.errors import OnelipError
from onelip.experiments.classification import ClassificationFolder, build_loss, build_model, table
from onelip.experiments.classification.comparison import read
from onelip.experiments.sweeps.folder import SweepFolder
from onelip.experiments.sweeps.settings import SweepSettings
from onelip.experiments.tables.list_of_runs import runs_list
from onelip.experiments.tables.of_runs import FORMATS, run_table_text, runs_table
from onelip.experiments.tables.stored_runs import read_run
from onelip.experiments.transport.folder import TransportFolder
from onelip.experiments.transport.text import transport_text
from onelip.experiments.wgan.folder import WGANFolder
from tests.mutations import damaged, mutations

COMMANDS = {
    "train": [
        "certify RUN",
        "plot RUN",
        "report RUN",
        "attack RUN --samples 3 --attacks fgm",
        "bound RUN --seconds 1",
        "train --quiet --resume RUN",
    ],
    "transport": ["transport --quiet --resume RUN"],
    "wgan": ["wgan --quiet --resume RUN"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run of each command that makes one."""
    root = tmp_path_factory.mktemp("runs")
    np.save(root / "p.npy", np.random.default_rng(0).normal(size=(40, 2)))
    np.save(root / "q.npy", np.random.default_rng(1).normal(size=(40, 2)))
    quiet("train digits --quiet --epochs 1 --network.conv_layers 1 --network.channels 2 "
          "--network.hidden_channels 2 --network.linear_layers 1 --network.features 12 "
          f"--eps 0.1,0.3 --attack_steps 2 --attack_samples 3 --out {root}/train")  # fmt: skip
    quiet(
        f"transport {root}/p.npy {root}/q.npy --widths 4 --steps 3 --quiet --out {root}/transport"
    )
    quiet("wgan digits --steps 2 --critic_steps 1 --batch 8 --latent 2 --width 2 --critic_width 2 "
          f"--judge_steps 2 --quiet --out {root}/wgan")  # fmt: skip
    return root


def quiet(line):
    """The exit status and what was said; a traceback is raised."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(line.split())
    return status, err.getvalue()


def contents(folder):
    """Of every file; a record without the note that another process has worked on it."""
    files = {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}
    with contextlib.suppress(ValueError, RecursionError, KeyError):
        record = json.loads(files["metrics.json"])
        if isinstance(record, dict):
            del record["sessions"]
            files["metrics.json"] = json.dumps(record)
    return files


def records(root):
    for kind in COMMANDS:
        yield kind, json.loads((root / kind / "metrics.json").read_text())


def look(kind, folder):
    """Read a record as the commands do, and show it."""
    if kind == "train":
        run = ClassificationFolder.open(folder)
        recipe = run.recipe
        if sum(v for v in recipe.network.values() if isinstance(v, int)) < 1000:
            build_model(recipe)
        build_loss(recipe)
        with contextlib.suppress(OnelipError):  # one without an entry; others show it
            table(run.read(), recipe)
        _ = run.data_folder
        of_run = [read(folder)]
        runs_list(of_run)
        for form in FORMATS:
            run_table_text(runs_table(of_run), form)
    elif kind == "transport":
        run = TransportFolder.open(folder)
        _ = run.settings
        content = run.read()
        if {"samples", "critic", "train", "result"} <= set(content):
            transport_text(content)
    else:
        run = WGANFolder.open(folder)
        _ = run.settings, run.read(), run.data_folder


@pytest.mark.parametrize("kind", COMMANDS)
def test_every_field_of_every_record(runs, kind, tmp_path):
    shutil.copytree(runs / kind, tmp_path / "run")
    record = tmp_path / "run" / "metrics.json"
    content = json.loads(record.read_text())
    count = 0
    with record.open("r+b", buffering=0) as file:  # opening it each time takes longer than the rest
        for what, changed in mutations(content):
            file.seek(0)
            file.write(changed.encode())
            file.truncate()
            for read in (lambda: look(kind, tmp_path / "run"), lambda: read_run(record)):
                try:
                    read()
                except OnelipError:
                    continue
                except Exception as error:
                    raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
            count += 1
    assert count > 1500


def test_every_field_of_a_sweep(tmp_path):
    settings = SweepSettings(recipe="digits", overrides=("--epochs=1",), grid={"seed": ("0", "1")})
    folder = SweepFolder.open_or_create(settings, tmp_path / "sweep")
    assert [run["name"] for run in folder.runs()] == ["seed=0", "seed=1"]
    count = 0
    for what, changed in mutations(json.loads(folder.record.read_text())):
        folder.record.write_text(changed, errors="surrogatepass")
        try:
            opened = SweepFolder.open(folder.path)
            for run in opened.runs():
                assert opened.run_path(run).parent == folder.path, what
                opened.arguments(run)
        except OnelipError:
            continue
        except Exception as error:
            raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
        count += 1
    assert count > 100


def through_commands(root, tmp_path, count, seed):
    """Run commands on mutated folders; what was refused left the folder as it was."""
    draw = random.Random(seed)
    refused = 0
    cases = []
    for kind, content in records(root):
        cases += [(kind, "metrics.json", what, text) for what, text in mutations(content)]
        for file in (root / kind).iterdir():
            if file.suffix in (".json", ".safetensors", ".pt", ".ckpt"):
                changed = damaged(file.read_bytes(), 400)
                cases += [(kind, file.name, what, data) for what, data in changed]
    for number, (kind, name, what, data) in enumerate(draw.sample(cases, count)):
        if number % 100 == 0:
            gc.collect()  # figures are cycles of a few large objects
            print(number, refused, flush=True)
        folder = tmp_path / "run"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(root / kind, folder)
        (folder / name).write_bytes(data if isinstance(data, bytes) else data.encode())
        line = draw.choice(COMMANDS[kind]).replace("RUN", str(folder))
        before = contents(folder)
        try:
            status, said = quiet(line)
        except BaseException as error:
            raise AssertionError(f"{line}: {name}: {what}: {error!r}") from error
        if status == 0:
            continue
        refused += 1
        assert status == 2, (line, what)
        assert said.startswith("onelip: "), (line, what, said)
        assert len(said.splitlines()) == 1, (line, what, said)
        assert contents(folder) == before, (line, what)
    return refused


@pytest.mark.slow
def test_commands_on_mutated_folders(runs, tmp_path):
    assert through_commands(runs, tmp_path, 150, seed=0) > 50


@pytest.mark.slow
def test_ten_thousand_commands(runs, tmp_path):
    count = int(os.environ.get("ONELIP_MUTATIONS", "10000"))
    refused = through_commands(runs, tmp_path, count, seed=1)
    print(f"\n{count} commands on mutated folders: {refused} refused, 0 tracebacks, 0 changed")


@pytest.mark.parametrize(
    "tensor",
    [
        torch.eye(6).to_sparse(),
        torch.eye(6).to_sparse_csr(),
        torch.nested.nested_tensor([torch.ones(3), torch.ones(4)], layout=torch.jagged),
        torch.empty(9, 2, device="meta"),
        torch.quantize_per_tensor(torch.rand(9, 2), 0.1, 0, torch.quint8),
        torch.rand(9, 2).to(torch.complex64),
        torch.rand(9, 2).to(torch.float8_e4m3fn),
        torch.zeros(9, 0),
        torch.tensor(3.0),
    ],
    ids=["coo", "csr", "nested", "meta", "quantized", "complex", "float8", "empty", "scalar"],
)
def test_tensors_that_hold_no_samples(tmp_path, tensor):
    torch.save(tensor, tmp_path / "p.pt")
    np.save(tmp_path / "q.npy", np.zeros((40, 2), dtype=np.float32))
    place = tmp_path
    status, said = quiet(
        f"transport {place}/p.pt {place}/q.npy --steps 1 --quiet --out {place}/run"
    )
    assert status == 2
    assert said.count("\n") == 1
    assert str(place / "p.pt") in said
    assert not (place / "run").exists()
