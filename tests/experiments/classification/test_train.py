"""Training: a resumed run is an uninterrupted one, and processes share the work of one."""

import csv
import dataclasses
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import safetensors.torch
import torch

from onelip.atomic_files import atomic_write
from onelip.cli import main
from onelip.data import data_set
from onelip.errors import NonFiniteError, UsageError
from onelip.experiments.classification import (
    ClassificationFolder,
    Recipe,
    build_loss,
    build_model,
    certify_run,
    train,
)
from onelip.experiments.classification.training import loggers
from onelip.experiments.classification.training.classifier import Classifier
from onelip.experiments.classification.training.schedule import piecewise_triangular
from onelip.losses import OffsetCrossEntropy

NETWORK = {
    "conv_layers": 1,
    "channels": 4,
    "hidden_channels": 4,
    "linear_layers": 1,
    "features": 16,
}
TINY = Recipe(
    "tiny",
    "an example",
    "digits",
    "cpl_digits",
    network=NETWORK,
    objective={"offset": 1.5, "temperature": 0.25},
    batch_size=64,
    lr=5e-3,
    validation=150,
    epochs=4,
    crop=1,
)


def started(path, **changes):
    return ClassificationFolder.create(dataclasses.replace(TINY, **changes), path)


def finished(path, **changes):
    run = started(path, **changes)
    assert train(run, progress=False)
    return run


def weights(run):
    return safetensors.torch.load_file(run.weights)


def epochs(run):
    history = run.read()["train"]["epochs"]
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in history]


def assert_same(one, other):
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    return finished(tmp_path_factory.mktemp("uninterrupted") / "run")


class PowerCutError(Exception):
    pass


@pytest.mark.parametrize(("epoch", "batch"), [(0, 5), (2, 0), (2, 7), (3, 17)])
def test_resumed_after_a_crash(tmp_path, monkeypatch, uninterrupted, epoch, batch):
    real = Classifier.training_step

    def cut(self, images, index):
        if (self.current_epoch, index) == (epoch, batch):
            raise PowerCutError
        return real(self, images, index)

    run = started(tmp_path / "run")
    monkeypatch.setattr(Classifier, "training_step", cut)
    with pytest.raises(PowerCutError):
        train(run, progress=False)
    assert run.checkpoint.exists() == (epoch > 0)
    assert not run.weights.exists()
    monkeypatch.setattr(Classifier, "training_step", real)
    assert train(ClassificationFolder.open(run.path), progress=False)
    assert_same(weights(run), weights(uninterrupted))
    assert epochs(run) == epochs(uninterrupted)


def test_resumed_after_every_epoch(tmp_path, uninterrupted, whole_epochs):
    run = started(tmp_path / "run")
    for count in (1, 2, 3):
        assert not train(run, progress=False, max_minutes=1e-6)
        assert len(epochs(run)) == count
        assert not run.read()["train"]["complete"]
        assert run.weights.exists()
    assert train(run, progress=False, max_minutes=1e-6)
    assert run.read()["train"]["complete"]
    assert_same(weights(run), weights(uninterrupted))
    assert epochs(run) == epochs(uninterrupted)


def test_a_complete_run_resumes_to_itself(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted.path, tmp_path / "run")
    run = ClassificationFolder.open(tmp_path / "run")
    assert train(run, progress=False)
    assert_same(weights(run), weights(uninterrupted))
    assert epochs(run) == epochs(uninterrupted)


def test_history(uninterrupted):
    content = uninterrupted.read()["train"]
    assert content["complete"]
    assert content["processes"] == 1
    assert len(content["epochs"]) == 4
    assert content["seconds"] == pytest.approx(sum(e["seconds"] for e in content["epochs"]))
    first, *_, last = epochs(uninterrupted)
    assert last["loss"] < first["loss"]
    assert last["held_out_accuracy"] > max(0.4, first["held_out_accuracy"])
    model = uninterrupted.load_model()
    assert not model.training
    assert content["parameters"] == sum(p.numel() for p in model.parameters())


def test_seeds(tmp_path, uninterrupted):
    reference = weights(uninterrupted)
    torch.manual_seed(123)  # must not matter
    assert_same(weights(finished(tmp_path / "same")), reference)
    other = weights(finished(tmp_path / "other", seed=1))
    assert not any(torch.equal(other[name], reference[name]) for name in reference)


def test_schedule_is_piecewise_linear():
    for progress in np.linspace(0, 1, 1001):
        expected = np.interp(progress, [0, 2 / 5, 4 / 5, 1], [0, 1, 1 / 20, 0])
        assert piecewise_triangular(progress) == pytest.approx(expected, abs=1e-12)
    assert piecewise_triangular(1.01) == 0


def test_schedule_moves_every_step(tmp_path, monkeypatch, whole_epochs):
    rates, real = [], Classifier.on_train_batch_start

    def note(self, *arguments):
        rates.append(self.optimizers().param_groups[0]["lr"])
        return real(self, *arguments)

    monkeypatch.setattr(Classifier, "on_train_batch_start", note)
    run = started(tmp_path / "run", epochs=3)
    while not train(run, progress=False, max_minutes=1e-6):
        pass
    steps = 3 * ((1347 - TINY.validation) // TINY.batch_size)
    progress = np.arange(steps) / steps
    expected = TINY.lr * np.interp(progress, [0, 2 / 5, 4 / 5, 1], [0, 1, 1 / 20, 0])
    np.testing.assert_allclose(rates, expected, atol=1e-15)


def test_bf16_keeps_float32_weights(tmp_path, uninterrupted):
    run = finished(tmp_path / "run", precision="bf16")
    numbers = [tensor for tensor in weights(run).values() if tensor.is_floating_point()]
    assert all(tensor.dtype == torch.float32 for tensor in numbers)
    assert any(not torch.equal(weights(run)[k], v) for k, v in weights(uninterrupted).items())
    assert epochs(run)[-1]["loss"] == pytest.approx(epochs(uninterrupted)[-1]["loss"], rel=0.05)


@pytest.mark.slow
def test_compiled(tmp_path, uninterrupted):
    try:
        torch.compile(torch.sin)(torch.zeros(2))
    except Exception as error:
        pytest.skip(f"torch.compile does not work here: {type(error).__name__}")
    run = finished(tmp_path / "run", compile=True)
    assert weights(run).keys() == weights(uninterrupted).keys()
    assert epochs(run)[-1]["loss"] == pytest.approx(epochs(uninterrupted)[-1]["loss"], rel=0.02)


def test_nan_keeps_the_last_checkpoint(tmp_path, monkeypatch, uninterrupted):
    count, real = 0, OffsetCrossEntropy.forward

    def forward(self, logits, labels):
        nonlocal count
        count += 1
        return real(self, logits, labels) * (float("inf") if count == 40 else 1)

    run = started(tmp_path / "run")
    monkeypatch.setattr(OffsetCrossEntropy, "forward", forward)
    with pytest.raises(NonFiniteError, match=r"the loss is inf in epoch 3: .* lower --lr; .* kept"):
        train(run, progress=False)
    run.discard()
    assert run.checkpoint.exists()
    assert not run.weights.exists()
    monkeypatch.setattr(OffsetCrossEntropy, "forward", real)
    assert train(run, progress=False)
    assert_same(weights(run), weights(uninterrupted))


def test_no_batch_is_ever_seen_twice_in_an_epoch(tmp_path, monkeypatch):
    seen, real = [], Classifier.training_step

    def note(self, batch, index):
        seen.append((self.current_epoch, batch[0].clone()))
        return real(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", note)
    finished(tmp_path / "run", epochs=2, crop=0)
    first, second = (torch.cat([x for e, x in seen if e == epoch]).flatten(1) for epoch in (0, 1))
    assert len(first) == len(second) == 18 * 64
    assert not torch.equal(first, second)
    assert len(first.unique(dim=0)) > 18 * 64 - 10  # the digits hold a few twins


SHARED = """
import sys
from pathlib import Path
import torch
from onelip.experiments.classification import train
from onelip.experiments.classification import ClassificationFolder
from onelip.experiments.classification.training.classifier import Classifier
def end(self):
    torch.save(self.model.state_dict(), Path(sys.argv[1]) / f"rank{self.global_rank}.pt")
Classifier.on_train_end = end
train(ClassificationFolder.open(Path(sys.argv[1])), progress=False)
"""


def two_processes(*command):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run(
        [*launch, *map(str, command)],
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


@pytest.mark.slow
def test_two_processes_train_what_one_does(tmp_path):
    one = finished(tmp_path / "one", epochs=2, crop=0)
    two = started(tmp_path / "two", epochs=2, crop=0)
    (tmp_path / "script.py").write_text(SHARED)
    done = two_processes(tmp_path / "script.py", two.path)
    assert done.returncode == 0, done.stderr
    ranks = [torch.load(two.path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]
    assert_same(*ranks)
    assert_same(weights(two), ranks[0])
    assert two.read()["train"]["processes"] == 2
    for name, expected in weights(one).items():
        torch.testing.assert_close(weights(two)[name], expected, rtol=1e-3, atol=1e-4)
    for mine, theirs in zip(epochs(two), epochs(one), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)


@pytest.mark.slow
def test_two_processes_from_the_command_line(tmp_path):
    options = [f"--network.{name}={value}" for name, value in NETWORK.items()]
    options += ["--epochs=1", "--attack_samples=0", "--quiet", f"--out={tmp_path / 'run'}"]
    done = two_processes("-m", "onelip", "train", "digits", *options)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("proved Lipschitz bound") == 1
    content = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert content["train"]["complete"]
    assert content["train"]["processes"] == 2
    assert content["certify"]["body_bound"] == 1


def test_atomic_write(tmp_path):
    target = tmp_path / "file.json"
    with atomic_write(target) as temporary:
        temporary.write_text("old")
        assert not target.exists()
    assert target.read_text() == "old"

    def fail():
        with atomic_write(target) as temporary:
            assert temporary.suffix == ".json"
            temporary.write_text("half")
            raise PowerCutError

    with pytest.raises(PowerCutError):
        fail()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("build", "changes", "message"),
    [
        (build_model, {"model": "foo"}, "no model 'foo'; known: cpl_digits"),
        (build_model, {"network": {"foo": 1}}, "unexpected keyword argument 'foo'"),
        (build_model, {"network": {"pool": 3}}, "pool=3 does not divide"),
        (build_loss, {"loss": "foo"}, "no loss 'foo'; known: hinge"),
        (build_loss, {"objective": {"foo": 1}}, "unexpected keyword argument 'foo'"),
    ],
)
def test_what_cannot_be_built(build, changes, message):
    with pytest.raises(UsageError, match=message):
        build(dataclasses.replace(TINY, **changes))


def table_of(run):
    """Its lines without the seconds."""
    with (run.path / "epochs.csv").open(newline="") as file:
        return [{k: v for k, v in line.items() if k != "seconds"} for line in csv.DictReader(file)]


def test_epochs_of_a_resumed_run_are_those_of_a_whole_one(tmp_path, whole_epochs):
    whole, resumed = finished(tmp_path / "whole"), started(tmp_path / "resumed")
    assert not train(resumed, progress=False, max_minutes=1e-9)
    assert len(table_of(resumed)) == 1
    assert train(resumed, progress=False)
    assert table_of(resumed) == table_of(whole)
    assert [line["epoch"] for line in table_of(whole)] == ["1", "2", "3", "4"]
    stored = whole.read()["train"]["epochs"]
    for line, epoch in zip(table_of(whole), stored, strict=True):
        assert float(line["loss"]) == epoch["loss"]
        assert float(line["held_out_accuracy"]) == epoch["held_out_accuracy"]


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = started(tmp_path / "run", epochs=2)
    assert train(run, progress=False, log=("tensorboard",))
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    losses = [event.value for event in events.Scalars("loss")]
    assert losses == pytest.approx([epoch["loss"] for epoch in run.read()["train"]["epochs"]])


def test_wandb(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = started(tmp_path / "run", epochs=1)
    assert train(run, progress=False, log=("wandb",))
    assert [*(run.path / "wandb").rglob("*.wandb")]


@pytest.mark.parametrize(
    ("log", "message"), [(("foo",), "known: tensorboard, wandb"), (("wandb",), r"onelip\[log\]")]
)
def test_loggers_that_are_not_there(tmp_path, monkeypatch, log, message):
    monkeypatch.setattr(loggers, "find_spec", lambda name: None)
    run = started(tmp_path / "run")
    with pytest.raises(UsageError, match=message):
        train(run, progress=False, log=log)


def test_evaluation_on_held_out_images_alone(tmp_path, monkeypatch):
    """No number of the test set is computed, and its images are not even loaded."""
    run = finished(tmp_path / "run", epochs=1)
    certify_run(run)
    expected = run.read()["certify"]["held_out"]
    other = started(tmp_path / "other", epochs=1)
    real = data_set.load

    def load(name, split, *more):
        assert split == "train"
        return real(name, split, *more)

    monkeypatch.setattr(data_set, "load", load)
    assert main(["train", f"--resume={other.path}", "--quiet", "--evaluate=held-out"]) == 0
    record = other.read()
    assert record["held_out"] == expected
    assert not {"certify", "attack"} & set(record)
