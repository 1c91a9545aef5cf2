"""The command line: what it prints and leaves behind, and that bad input ends in one line."""

import io
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image
from torch import nn

import onelip
from onelip.attacks import ATTACKS, Boundary
from onelip.cli import COMMANDS, main
from onelip.directed_rounding import downwards, upwards
from onelip.errors import SoundnessError
from onelip.experiments.classification import attack
from onelip.experiments.classification.training.callbacks import History, TimeLimit
from onelip.experiments.classification.training.classifier import Classifier
from onelip.experiments.recipes import GROUPS, RECIPES
from onelip.lipschitz import lipschitz_bound
from onelip.losses import LOSSES, OffsetCrossEntropy
from onelip.transport import CriticTraining

TINY = shlex.split(
    "--network.conv_layers 1 --network.channels 4 --network.hidden_channels 4 "
    "--network.linear_layers 1 --network.features 16 --epochs 3 --eps [0.1,0.3] "
    "--batch_size 64 --lr 5e-3 --attack_steps 5 --attack_samples 40 --quiet"
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / "run"
    assert main(["train", "digits", *TINY, "--out", str(path)]) == 0
    return path


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("ONELIP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


@pytest.fixture
def run(here, trained):
    shutil.copytree(trained, "run")
    return Path("run")


@pytest.fixture
def call(capsys):
    def call(line, *more):
        capsys.readouterr()
        status = main([*shlex.split(line), *more])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def refused(call):
    """Status 2, one line that shows the way out, and nothing changed on disk."""

    def refused(line, message, *more):
        before = contents()
        status, out, err = call(line, *more)
        assert status == 2
        assert out == ""
        assert_one_line(err, message)
        assert contents() == before

    return refused


def assert_one_line(err, message):
    lines = [line for line in err.splitlines() if line.strip()]
    assert len(lines) == 1, err
    assert lines[0].startswith("onelip: ")
    assert message in lines[0]


def contents():
    return {p: p.read_bytes() if p.is_file() else None for p in Path().rglob("*")}


def metrics(run):
    return json.loads((run / "metrics.json").read_text())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("nonsense", "known: train, sweep"),
        ("recipes extra", "onelip recipes --help"),
        ("recipes --table foo", "known: own, digits"),
        ("train dense", "name your data: --data FOLDER"),
        ("train digits --size 8", "for data of your own, which --data names"),
        ("train", "onelip recipes lists them"),
        ("train --epochs 3", "onelip recipes lists them"),
        ("train nope", "onelip recipes lists them"),
        ("train digits extra", "onelip train digits --help"),
        ("train digits --foo 3", "onelip train digits --help"),
        ("train digits --epoch 3", "onelip train digits --help"),
        ("train digits --name foo", "onelip train digits --help"),
        ("train digits --network.foo 3", "onelip train digits --help"),
        ("train digits --objective.margin 3", "onelip train digits --help"),
        ("train digits --model foo", "known: cpl_digits"),
        ("train digits --model=foo", "known: cpl_digits"),
        ("train digits --loss foo", "known: hinge"),
        ("train digits --dataset foo", "known: digits, mnist"),
        ("train digits --precision fp16", "'bf16'"),
        ("train digits --network.head foo", "'unit-rows'"),
        ("train digits --epochs abc", "<class 'int'>"),
        ("train digits --epochs 1.5", "<class 'int'>"),
        ("train digits --lr inf", "<class 'float'>"),
        ("train digits --eps x", "onelip train digits --help"),
        ("train digits --eps []", "positive radii"),
        ("train digits --eps [-0.1]", "positive radii"),
        ("train digits --epochs -1", "--epochs must be positive"),
        ("train digits --epochs 0", "--epochs must be positive"),
        ("train digits --lr 0", "--lr must be positive"),
        ("train digits --crop -1", "--crop must not be negative"),
        ("train digits --seed -1", "--seed must not be negative"),
        ("train digits --seed 9223372036854775808", "--seed must be below 2^62"),
        ("train digits --max-minutes 0", "--max_minutes must be positive"),
        ("train digits --batch_size 5000", "choose at most that"),
        ("train digits --validation 5000", "choose 1 to 1346"),
        ("train digits --network.pool 3", "does not divide an image of 8 x 8"),
        ("train digits --network.pool 0", "pool must be at least 1"),
        ("train digits --network.channels 0", "channels must be at least 1"),
        ("train digits --network.hidden_channels -1", "hidden_channels must be at least 1"),
        ("train digits --network.features 0", "features must be at least 1"),
        ("train digits --network.conv_layers -1", "conv_layers must be at least 0"),
        ("train digits --network.linear_layers -1", "linear_layers must be at least 0"),
        ("train digits --network.kernel_size 2", "must be odd"),
        ("train digits --network.step 0", "None keeps the layer 1-Lipschitz"),
        ("train digits --network.mean [0.1,0.2]", "per channel"),
        (
            "train digits --network.head truncate --network.channels 1 --network.pool 8",
            "10 logits: unit-rows",
        ),
        ("train digits --model cpl_s", "per channel"),
        ("train digits --epochs 0 --out a/b", "--epochs must be positive"),
        ("train digits --batch_size 5000 --out a/b/c", "choose at most that"),
        ("train cpl-mnist --data nowhere", "pass --data DIR"),
        ("train --resume", "onelip train --help"),
        ("train --resume nowhere", "onelip train makes one"),
        ("certify nowhere", "onelip train makes one"),
        ("certify", "onelip certify --help"),
        ("attack nowhere", "onelip train makes one"),
        ("bound nowhere", "onelip train makes one"),
        ("plot nowhere", "onelip train makes one"),
        ("plot", "onelip plot --help"),
        ("transport", "onelip transport P Q, or one --task NAME"),
        ("transport digits", "onelip transport P Q, or one --task NAME"),
        ("transport digits digits digits", "onelip transport --help"),
        ("transport digits digits --task gaussians", "name two samples"),
        ("transport --task foo", "known: absolute-value, three-cones"),
        ("transport nowhere digits", "no file or folder nowhere: name an .npy"),
        ("transport digits:0 digits", "choose one of train, test"),
        ("transport digits digits --critic foo", "known: dense, dcgan, extension"),
        ("transport digits digits --critic extension --layer bjorck", "leave them out"),
        ("transport digits digits --fresh", "--fresh draws from a --task"),
        ("transport --task funnels-2-4", "reads funnels.npz of the folder --data DIR"),
        ("transport --task funnels-2-4 --data nowhere", "no funnels.npz in nowhere"),
        ("transport digits digits --layer foo", "known: aol, bjorck"),
        ("transport digits digits --critic dense --layer bcop", "known: aol, bjorck"),
        ("transport digits digits --activation foo", "known: absolute"),
        ("transport digits digits --widths 8,x", "onelip transport --help"),
        ("transport digits digits --layer bcop --widths 8,8,8,8", "leave nothing of 8 x 8"),
        ("transport digits digits --steps 0", "must be positive"),
        ("transport digits digits --samples 1348", "choose 4 to 1347"),
        ("transport digits digits --held-out 1", "does not leave two to train on"),
        ("transport digits digits --confidence 95", "a probability such as 0.95"),
        ("transport digits digits --diameter 0", "--diameter must be positive"),
        ("transport digits digits --out a/b --lr 0", "must be positive"),
        ("transport --resume nowhere", "onelip transport makes one"),
        ("transport --resume nowhere --steps 3", "onelip transport --help"),
    ],
)
def test_bad_arguments(refused, line, message):
    refused(line, message)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train digits --out run", "choose another --out, or go on with onelip train --resume run"),
        ("train digits --out run/metrics.json/x", "choose another --out"),
        ("train --resume run --epochs 5", "onelip train --help"),
        ("train digits --resume run", "onelip train digits --help"),
        ("certify run/metrics.json", "onelip train makes one"),
        (
            "attack run --attacks pgd,foo",
            "known: fmn, apgd-t, apgd-ce, square, auto, pgd",
        ),
        ("attack run --samples 0", "--samples must be 1 or more"),
        ("attack run --samples -3", "--samples must be 1 or more"),
        ("attack run --samples x", "onelip attack --help"),
        ("bound run --samples 3", "onelip bound --help"),
        ("bound run --seconds 0", "--seconds must be positive"),
        ("bound run --methods foo", "known: "),
        ("certify run --method foo", "known: product, eclipse-fast"),
        ("plot run --out figure.xyz", "--out FIGURE.png"),
        ("plot run --out .", "--out FIGURE.png"),
        ("plot run --out no/where.png", "choose another --out"),
    ],
)
def test_bad_arguments_with_a_run(refused, run, line, message):
    refused(line, message)


def replaced(name, data):
    return lambda run: (run / name).write_bytes(data)


def removed(name):
    return lambda run: (run / name).unlink()


def truncated(name):
    return lambda run: os.truncate(run / name, (run / name).stat().st_size // 2)


def edited(**changes):
    def edit(run):
        content = metrics(run)
        content["recipe"] |= changes
        (run / "metrics.json").write_text(json.dumps(content))

    return edit


def another_pickle(run):
    torch.save({"a": 1}, run / "checkpoint.ckpt")


NO_RECIPE = [
    (replaced("metrics.json", b"\xff\x00"), "name the folder of another run"),
    (replaced("metrics.json", b"{"), "name the folder of another run"),
    (truncated("metrics.json"), "name the folder of another run"),
    (replaced("metrics.json", b"[]"), "name a folder written by onelip train"),
    (replaced("metrics.json", b"{}"), "name a folder written by onelip train"),
    (replaced("metrics.json", b'{"recipe": {}}'), "name the folder of another run"),
    (replaced("metrics.json", b'{"recipe": 3}'), "name the folder of another run"),
    (edited(foo=3), "unknown setting 'foo'"),
    (edited(eps=3), "name the folder of another run"),
    (edited(epochs="a"), "name the folder of another run"),
    (edited(dataset="foo"), "known: digits, mnist"),
]
NO_MODEL = [
    (edited(model="foo"), "known: cpl_digits"),
    (edited(network={"foo": 1}), "unexpected keyword argument 'foo'"),
]
NO_WEIGHTS = [
    *NO_MODEL,
    (removed("model.safetensors"), "onelip train --resume run"),
    (truncated("model.safetensors"), "onelip train --resume run"),
    (replaced("model.safetensors", b"abc"), "onelip train --resume run"),
    (edited(network={"conv_layers": 2, "channels": 4}), "corrupt or of another model"),
]
NO_CERTIFICATE = [
    (removed("certificates.safetensors"), "onelip certify run"),
    (truncated("certificates.safetensors"), "onelip certify run"),
    (replaced("certificates.safetensors", b"abc"), "onelip certify run"),
]
NO_CHECKPOINT = [
    *NO_MODEL,
    *((replaced("checkpoint.ckpt", data), "another --out") for data in (b"", b"abc", b"PK\3\4abc")),
    (truncated("checkpoint.ckpt"), "another --out"),
    (another_pickle, "another --out"),
    (edited(network={"conv_layers": 2, "channels": 4}), "another --out"),
    (edited(loss="foo"), "known: hinge"),
    (edited(objective={"foo": 1}), "unexpected keyword argument 'foo'"),
]


@pytest.mark.parametrize(
    ("line", "damage", "message"),
    [
        (line, *row)
        for line, rows in {
            "certify run": NO_RECIPE + NO_WEIGHTS,
            "attack run": NO_RECIPE + NO_WEIGHTS,
            "bound run": NO_RECIPE + NO_WEIGHTS,
            "plot run": NO_RECIPE + NO_CERTIFICATE,
            "train --quiet --resume run": NO_RECIPE + NO_CHECKPOINT,
        }.items()
        for row in rows
    ],
)
def test_damaged_runs(refused, run, line, damage, message):
    damage(run)
    refused(line, message)


def parquet(split, shape=(28, 28), label=3, count=4):
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    buffer = io.BytesIO()
    Image.fromarray(np.zeros(shape, np.uint8)).save(buffer, "PNG")
    rows = {"image": [{"bytes": buffer.getvalue()}] * count, "label": [label] * count}
    Path("data").mkdir(exist_ok=True)
    pq.write_table(pa.table(rows), f"data/{split}-00000-of-00001.parquet")


@pytest.mark.parametrize("bad", ["train", "test"])
@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"shape": (8, 8)}, "is 1x8x8, expected 1x28x28: is this another data set?"),
        ({"label": 10}, "label 10 in row 0"),
        ({"label": -1}, "outside 0..9"),
    ],
)
def test_data_that_do_not_fit(refused, bad, fault, message):
    for split in ("train", "test"):
        parquet(split, **fault if split == bad else {})
    if bad == "train" and "shape" in fault:  # then they are data of one's own, of two sizes
        message = (
            "8x8 pixels, the image in row 0 of data/test-00000-of-00001.parquet 28x28: --size 8"
        )
    refused("train cpl-mnist --data data --out run --quiet", message)


def test_a_folder_with_one_split(refused):
    parquet("train")
    refused("train cpl-mnist --data data --out run --quiet", "no test-*.parquet for mnist")


class TurnsNaN(OffsetCrossEntropy):
    """NaN from the given batch on."""

    start, batches = 0, 0

    def forward(self, logits, labels):
        TurnsNaN.batches += 1
        return super().forward(logits, labels) * (torch.nan if self.batches > self.start else 1)


@pytest.fixture
def turns_nan(monkeypatch):
    monkeypatch.setitem(LOSSES, "cross-entropy", TurnsNaN)
    monkeypatch.setattr(TurnsNaN, "batches", 0)
    return lambda start: monkeypatch.setattr(TurnsNaN, "start", start)


def test_nan_in_the_first_epoch_leaves_nothing(refused, turns_nan):
    turns_nan(3)
    refused("train digits --out run", "the loss is nan in epoch 1: train with a lower --lr", *TINY)


def test_nan_later_keeps_the_checkpoint(call, turns_nan):
    turns_nan(40)
    status, out, err = call("train digits --out run", *TINY)
    assert (status, out) == (2, "")
    assert_one_line(err, "in epoch 3: train with a lower --lr; the epochs before it are kept")
    kept = torch.load("run/checkpoint.ckpt", weights_only=True)
    assert kept["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in kept["state_dict"].values())


def test_interrupted(call, monkeypatch):
    real, handler = Classifier.training_step, signal.getsignal(signal.SIGINT)

    def interrupted(self, batch, index):
        if self.current_epoch == 1:
            raise KeyboardInterrupt
        return real(self, batch, index)

    monkeypatch.setattr(Classifier, "training_step", interrupted)
    assert call("train digits --out run", *TINY) == (
        130,
        "",
        "onelip: interrupted; go on with: onelip train --resume run\n",
    )
    assert signal.getsignal(signal.SIGINT) == handler
    monkeypatch.setattr(Classifier, "training_step", real)
    assert call("train --quiet --resume run")[0] == 0
    assert len(metrics(Path("run"))["train"]["epochs"]) == 3


def test_an_epoch_that_does_not_fit(refused):
    """The limit holds for the first epoch, too: its first steps warn, and nothing is left."""
    refused("train digits --quiet --out run --max-minutes 0.00001", "give more --max-minutes")
    assert not Path("run").exists()


def test_the_first_steps_warn(call, monkeypatch, whole_epochs):
    _, _, err = call("train digits --quiet --out run --max-minutes 0.00001", *TINY)
    assert "an epoch takes about" in err
    assert "is lost when --max-minutes 1e-05 is over" in err


def test_a_later_epoch_that_is_cut(call, monkeypatch):
    """What the epochs before it have learnt is stored, and the run goes on from there."""
    real, seen = History.on_train_epoch_end, []

    def slow_later(self, trainer, module):
        real(self, trainer, module)
        seen.append(trainer.current_epoch)
        limit = next(c for c in trainer.callbacks if isinstance(c, TimeLimit))
        limit.seconds = 1e9 if len(seen) < 2 else 0.0  # the second epoch ends, the third does not

    with monkeypatch.context() as patched:
        patched.setattr(History, "on_train_epoch_end", slow_later)
        patched.setattr(TimeLimit, "on_train_epoch_end", lambda *_: None)
        status, out, _ = call("train digits --out run --max-minutes 60", *TINY)
    assert status == 0
    assert out.startswith("stopped in time; go on with")
    assert len(metrics(Path("run"))["train"]["epochs"]) == 2
    assert call("train --resume=run --quiet")[0] == 0
    assert len(metrics(Path("run"))["train"]["epochs"]) == 3


def test_stopped_in_time(call, whole_epochs):
    status, out, _ = call("train digits --out run --max-minutes 0.00001", *TINY)
    assert status == 0
    assert out.startswith("stopped in time; go on with: onelip train --resume run, or take it")
    assert not metrics(Path("run"))["train"]["complete"]
    assert "stopped after 1 of 3 epochs" in call("certify run")[1]
    assert call("train --resume=run --quiet")[0] == 0
    assert metrics(Path("run"))["train"]["complete"]


def test_train(call):
    status, out, err = call("train digits --out new/run", *TINY)
    run = Path("new/run")
    assert (status, err) == (0, "")
    assert {path.name for path in run.iterdir()} == {
        "metrics.json",
        "model.safetensors",
        "checkpoint.ckpt",
        "certificates.safetensors",
        "epochs.csv",
        "figure.png",
    }
    content = metrics(run)
    assert f"proved Lipschitz bound {upwards(content['certify']['bound'], 9)}" in out
    assert "in front of the head 1.000000000" in out
    assert str(run / "metrics.json") in out
    assert str(run / "figure.png") in out
    recipe = content["recipe"]
    assert (recipe["seed"], recipe["epochs"], recipe["eps"]) == (0, 3, [0.1, 0.3])
    assert recipe["network"]["channels"] == 4
    assert content["versions"]["torch"] == torch.__version__
    assert content["versions"]["onelip"] == version("onelip")
    assert {"commit", "device", "started", "threads"} <= content.keys()
    assert content["train"]["seconds"] > 0
    assert len(content["train"]["epochs"]) == 3
    assert content["certify"]["test"]["samples"] == 450
    attack = content["attack"]["fmn, apgd-t on 40 images"]
    assert attack["samples"] == 40
    assert [row["eps"] for row in attack["eps"]] == [0.1, 0.3]


def test_the_default_folder_has_a_name_of_its_own(call):
    for _ in range(2):
        assert call("train digits --attack-samples 0 --epochs 1", *TINY[:10], "--quiet")[0] == 0
    assert len(list(Path("runs").glob("digits-*/metrics.json"))) == 2


@pytest.mark.usefixtures("clock")
def test_commands_on_a_run(call, run, monkeypatch):
    monkeypatch.setitem(ATTACKS, "boundary", lambda *_: (Boundary(steps=50),))  # minutes of 5000
    before = metrics(run)
    line = "attack run --attacks pgd,fgm,boundary,pointwise --samples 10"
    status, out, err = call(line)
    assert (status, err) == (0, "")
    assert "attacked %, pgd, fgm, boundary, pointwise on 10 images" in out
    assert "fmn, apgd-t on 40 images" in metrics(run)["attack"]  # another record is kept
    attack = metrics(run)["attack"]["pgd, fgm, boundary, pointwise on 10 images"]
    assert attack["samples"] == 10
    assert [name.split("(")[0] for name in attack["attacks"]] == [
        "PGD",
        "PGD",
        "FGM",
        "Boundary",
        "Pointwise",
    ]
    status, out, err = call("certify run")
    assert (status, err) == (0, "")
    assert upwards(before["certify"]["bound"], 9) in out
    status, out, err = call("bound run --seconds 5")
    assert (status, err) == (0, "")
    assert "exported" in out
    assert f"{before['certify']['bound']:.12f}" in out
    assert metrics(run)["bound"]["exported"] == pytest.approx(before["certify"]["bound"], abs=1e-12)
    assert call("plot run") == (0, "run/figure.png\n", "")
    assert call("plot run run --out both.svg") == (0, "both.svg\n", "")
    again = metrics(run)
    for name in ("recipe", "train", "started", "commit"):
        assert again[name] == before[name]
    without_time = {**again["certify"], "seconds": before["certify"]["seconds"]}
    assert without_time == before["certify"]


def test_level_float_costs_radius_in_32_bits_and_none_in_64(call, run):
    before = metrics(run)["certify"]
    found, radii = {}, {}
    for precision in (32, 64):
        status, out, err = call(f"certify run --level float --precision {precision}")
        stored = safetensors.torch.load_file(run / "certificates.safetensors")
        radii[precision] = float(stored["radius"].double().mean())
        assert (status, err) == (0, "")
        assert "level float)" in out
        found[precision] = metrics(run)["certify"]
        assert found[precision]["level"] == "float"
        assert found[precision]["logits"] == f"float{precision}, cpu"
    for eps, share in before["test"]["certified"].items():
        assert found[32]["test"]["certified"][eps] <= found[64]["test"]["certified"][eps]
        assert found[64]["test"]["certified"][eps] == pytest.approx(share, abs=1 / 450)
    assert call("attack run --samples 3 --attacks fgm")[0] == 0
    assert metrics(run)["certify"]["level"] == "float"  # as it was certified
    assert metrics(run)["certify"]["logits"] == "float64, cpu"
    assert 0.9 * radii[64] < radii[32] < radii[64]
    status, _, err = call("certify run --precision 16")
    assert (status, err) == (2, "onelip: --precision must be 32 or 64, got 16\n")
    assert call("certify run --level exact")[0] == 2


@pytest.mark.usefixtures("clock")
def test_methods_that_bound_a_run(call, run):
    status, out, err = call("bound run --methods liplt,eclipse-fast --seconds 3 --json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    tried = {method["method"] for method in found["methods"]}
    assert {"product", "liplt"} <= tried  # the product always: it costs nothing more
    assert not tried & {"lipsdp", "lipsdp-layer"}
    assert metrics(run)["bound"] == found


def test_methods_that_certify_a_run(call, run):
    before = metrics(run)["certify"]
    found = {}
    for method in ("liplt", "product"):
        status, _, err = call(f"certify run --method {method}")
        assert (status, err) == (0, "")
        found[method] = metrics(run)["certify"]
    assert "LipLT" in found["liplt"]["method"]
    assert found["liplt"]["bound"] <= found["product"]["bound"]
    assert {**found["product"], "seconds": before["seconds"]} == before
    status, out, err = call("certify run --method curvature")  # of a head that has none
    assert (status, out) == (2, "")
    assert_one_line(err, "curvature")
    assert metrics(run)["certify"] == found["product"]


def test_means_over_transforms_of_a_run(call, run):
    before, radii = metrics(run), (run / "certificates.safetensors").read_bytes()
    status, out, err = call("certify run --average flip")
    assert (status, err) == (0, "")
    assert "certified %, mean over flip" in out
    status, _, err = call("certify run --average cross,flip --level float --out means.json")
    assert (status, err) == (0, "")
    after = metrics(run)
    means = after.pop("averaged")
    assert after == before  # the run's own certificate stays, beside which attacks stand
    assert (run / "certificates.safetensors").read_bytes() == radii
    assert list(means) == ["flip", "cross,flip"]
    assert means["cross,flip"]["level"] == "float"
    assert means["flip"]["bound"] == pytest.approx(before["certify"]["bound"])
    test = onelip.data.load("digits", "test")
    x = test.inputs / 255 if test.inputs.dtype == torch.uint8 else test.inputs
    net, mean = onelip.load(run), onelip.load(run, average="flip")
    assert torch.allclose(mean(x), (net(x) + net(x.flip(3))) / 2, atol=1e-5)
    assert mean.info == net.info
    certificate = onelip.certify(mean, x, test.labels)
    for eps, share in means["flip"]["test"]["certified"].items():
        assert certificate.accuracy(float(eps), test.labels) == pytest.approx(share, abs=1e-9)
    assert call("export run -o mean.pt2 --average flip")[0] == 0
    assert torch.allclose(onelip.load("mean.pt2")(x), mean(x), atol=1e-5)
    assert call("prove run -o bundle --samples 3 --average flip")[0] == 0
    assert call("check bundle")[0] == 0
    np.save("one.npy", x[:1].numpy())
    status, out, _ = call("predict run one.npy --average flip")
    assert status == 0
    assert f"{float(certificate.radius[0]):.4f}"[:5] in out or certificate.radius[0] == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("certify run --average mirror", "known are flip, cross, shifts, wrapped-shifts"),
        ("certify run --average ''", "known are flip"),
        ("certify run --average flip --shards shards", "--average is not for shards"),
        ("export run -o mean.onnx --average flip,left", "no average over 'left'"),
        ("prove net.pt2 -o bundle --average flip", "--average is for runs"),
    ],
)
def test_averages_that_there_are_not(refused, run, line, message):
    refused(line, message)


def test_the_ceiling_of_a_data_set(call):
    status, out, err = call("ceiling digits --eps 1/4,1 --json")
    assert (status, err) == (0, "")
    found = json.loads(out)
    assert (found["samples"], [row["exactly"] for row in found["rows"]]) == (450, ["1/4", "1"])
    assert found["rows"][0]["certified"] == 1 - found["rows"][0]["lost"] / 450
    status, out, _ = call("ceiling digits --eps 0.25,1")
    assert (status, f"{100 * found['rows'][1]['certified']:.1f}" in out) == (0, True)
    Path("rows.csv").write_text("a,label\n" + "".join(f"{n % 7},{n % 2}\n" for n in range(40)))
    status, out, err = call("ceiling --data rows.csv --split train --eps 0.5")
    assert (status, err) == (0, "")
    assert "units of the table" in out
    assert "pairs have different labels" in out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ceiling --eps 1", "name your data"),
        ("ceiling digits --eps one", "--eps takes radii, as 36/255,0.5,1.58"),
        ("ceiling digits --eps 1/0", "--eps takes radii"),
        ("ceiling digits --eps inf", "--eps takes radii"),
        ("ceiling digits --eps=-1", "--eps must not be negative"),
        ("ceiling mnist --data nothing", "nothing"),
        ("ceiling digits --label a --data .", "data of your own"),
    ],
)
def test_ceilings_that_there_are_not(refused, line, message):
    refused(line, message)


def test_a_reader_that_has_seen_enough_is_no_error():
    onelip = f"{sys.executable} -m onelip recipes"
    line = ["bash", "-c", f"set -o pipefail; {onelip} | head -1"]
    done = subprocess.run(line, check=False, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.startswith(b"own ")


def test_attack_of_a_run_without_certificates(call, run):
    content = metrics(run)
    del content["certify"], content["attack"]
    (run / "metrics.json").write_text(json.dumps(content))
    assert call("attack run --samples 3 --attacks fgm")[0] == 0
    assert {"certify", "attack"} <= metrics(run).keys()


def test_a_broken_certificate_is_an_error(call, run, monkeypatch):
    def broken(*arguments):
        raise SoundnessError("sample 0 was broken: please report this run")

    monkeypatch.setattr(attack, "_attacked", broken)
    status, out, err = call("attack run")
    assert (status, out) == (2, "")
    assert_one_line(err, "please report this run")


def test_recipes(call):
    status, out, err = call("recipes --all")
    assert (status, err) == (0, "")
    assert [line.split()[0] for line in out.splitlines()] == list(RECIPES)
    status, out, err = call("recipes")
    assert (status, err) == (0, "")
    counts = {line.split()[0]: int(line.split()[1]) for line in out.splitlines()[: len(GROUPS)]}
    assert counts == {name: len(group.recipes) for name, group in GROUPS.items()}
    assert out.splitlines()[-1].split() == ["onelip", "train", GROUPS["bcop-1"].recipes[0]]
    status, out, err = call("recipes --table bcop-1")
    assert [line.split()[0] for line in out.splitlines()] == list(GROUPS["bcop-1"].recipes)


def test_dashes_are_underscores(call):
    line = "train digits --attack-samples 0 --batch-size=32 --network.linear-layers 0"
    assert call(f"{line} --network.conv-layers=1 --epochs 1 --quiet --out a-b")[0] == 0
    recipe = metrics(Path("a-b"))["recipe"]
    assert (recipe["attack_samples"], recipe["batch_size"]) == (0, 32)
    assert (recipe["network"]["linear_layers"], recipe["network"]["conv_layers"]) == (0, 1)


def test_another_loss_brings_its_own_fields(call):
    line = "train digits --loss hinge --objective.margin 0.3 --attack_samples 0 --epochs 1 --quiet"
    assert call(f"{line} --out run", *TINY[:10])[0] == 0
    assert metrics(Path("run"))["recipe"]["objective"] == {
        "margin": 0.3,
        "reduction": "mean",
    }


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
@pytest.mark.usefixtures("clock")
def test_bound_of_a_file(call, tmp_path, suffix):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    example, path = torch.rand(1, 3, 2, 2), tmp_path / f"network.{suffix}"
    if suffix == "pt2":
        torch.export.save(torch.export.export(model, (example,)), path)
    else:
        torch.onnx.export(model, (example,), path, dynamo=True, verbose=False)
    status, out, _ = call(f"bound {path} --seconds 5")
    assert status == 0
    for word in ("method", "product", "liplt", "eclipse-fast", "lipsdp", "lower estimate"):
        assert word in out
    status, out, _ = call(f"bound {path} --seconds 5 --json")
    found = json.loads(out)
    values = {m["method"]: m["bound"] for m in found["methods"]}
    product = float(lipschitz_bound(model))
    assert values["product"] == pytest.approx(product)
    assert found["lower"]["bound"] <= found["best"] == min(values.values()) < product


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.onnx", None, "missing.onnx"),
        ("corrupt.onnx", b"nothing", "corrupt.onnx"),
        ("corrupt.pt2", b"nothing", "corrupt.pt2"),
        ("CORRUPT.ONNX", b"nothing", "CORRUPT.ONNX cannot be read"),
        ("weights.txt", b"nothing", "weights.txt is no run folder"),
    ],
)
def test_bound_of_a_bad_file(call, tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    status, out, err = call(f"bound {tmp_path / name}")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert message in err


def test_bound_names_the_node_that_it_cannot_read(call, tmp_path):
    model = nn.Sequential(nn.Linear(4, 3), nn.Hardshrink()).eval()
    path = tmp_path / "hardshrink.pt2"
    torch.export.save(torch.export.export(model, (torch.rand(1, 4),)), path)
    status, out, err = call(f"bound {path}")
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "hardshrink" in err


@pytest.mark.parametrize("arguments", [[], ["-h"], ["--help"]])
def test_help(capsys, arguments):
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert all(f"  {command} " in out for command in COMMANDS)


@pytest.mark.parametrize("command", ["train", "train digits", *list(COMMANDS)[1:]])
def test_help_of_a_command(capsys, command):
    """Without defaults that are nothing, and without options that are required and have one."""
    with pytest.raises(SystemExit) as stop:
        main([*command.split(), "--help"])
    assert stop.value.code == 0
    out, err = capsys.readouterr()
    assert out.startswith(f"usage: onelip {command}")
    assert err == ""
    text = " ".join(out.split())
    assert "default: null" not in text
    assert "<class" not in text
    assert not re.search(r"\(required, [^()]*default: ", text)
    if command.startswith("train"):
        assert all(word in out for word in ("--network.channels", "--objective.offset", "--out"))


def process(line):
    return subprocess.run(
        [sys.executable, "-m", "onelip", *shlex.split(line)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_process(run):
    failed = process("nonsense")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert_one_line(failed.stderr, "known: train, sweep")
    done = process("certify run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "proved Lipschitz bound" in done.stdout


@pytest.mark.slow
def test_process_with_a_loss_that_overflows():
    """Warnings of other libraries stay out of the message."""
    before = contents()
    line = shlex.join([*TINY, "--network.step", "1e30"])
    failed = process(f"train digits --out run {line}")
    assert (failed.returncode, failed.stdout) == (2, "")
    assert_one_line(failed.stderr, "train with a lower --lr")
    assert contents() == before


@pytest.mark.parametrize("spelled", ["--eps 0.1,0.3", "--eps=0.1,0.3", "--eps [0.1,0.3]"])
def test_radii_without_brackets(call, spelled):
    line = f"train digits --epochs 1 --attack_samples 0 --out new --quiet {spelled}"
    assert call(line, *TINY[:10])[0] == 0
    assert metrics(Path("new"))["recipe"]["eps"] == [0.1, 0.3]


def test_another_process_takes_only_a_new_folder(call, run, monkeypatch):
    """Process 1 used to open, and to remove, a folder that process 0 had refused."""
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("onelip.cli.train.time.sleep", lambda _: None)
    content = metrics(run)
    content["started"] = "2020-01-01T00:00:00+00:00"
    (run / "metrics.json").write_text(json.dumps(content))
    (run / "checkpoint.ckpt").unlink()
    before = sorted(path.name for path in run.iterdir())
    status, _, err = call("train digits --out run --quiet")
    assert status == 2
    assert "process 0 did not make run" in err
    assert sorted(path.name for path in run.iterdir()) == before


DIGITS = "transport digits:test:3 digits:test:8 --widths 4,4 --steps 6 --batch 8 --out run"


def test_transport(call):
    status, out, err = call(f"{DIGITS} --quiet --exact")
    assert (status, err) == (0, "")
    assert {path.name for path in Path("run").iterdir()} == {
        "metrics.json",
        "checkpoint.pt",
        "critic.safetensors",
        "transport.png",
    }
    content = metrics(Path("run"))
    assert content["transport"]["widths"] == [4, 4]
    result, exact = content["result"], content["exact"]["distance"]
    assert result["value"] <= exact
    for words in (
        downwards(result["value"]),
        f"{exact:.6g}",
        "run/metrics.json",
        "23 of P, 22 of Q",
    ):
        assert words in out
    status, out, err = call("transport --resume run --quiet --json")
    assert (status, err) == (0, "")
    again = json.loads(out)
    assert again["result"] == result
    assert again == metrics(Path("run"))
    status, _, err = call(f"{DIGITS} --quiet")
    assert status == 2
    assert_one_line(err, "choose another --out, or go on with onelip transport --resume run")


def test_transport_of_a_task(call):
    status, out, _ = call("transport --task gaussians --samples 60 --steps 9 --widths 4 --quiet")
    assert status == 0
    assert "true distance of P and Q       2\n" in out
    assert [path.name.startswith("transport-2") for path in Path("runs").iterdir()] == [True]


def test_interrupted_transport(call, monkeypatch):
    real = CriticTraining._ascend

    def interrupted(self):
        if self.step == 4:
            raise KeyboardInterrupt
        return real(self)

    assert call(f"{DIGITS}-whole --quiet")[0] == 0
    monkeypatch.setattr(CriticTraining, "_ascend", interrupted)
    assert call(f"{DIGITS} --quiet") == (
        130,
        "",
        "onelip: interrupted; go on with: onelip transport --resume run\n",
    )
    monkeypatch.setattr(CriticTraining, "_ascend", real)
    status, _, err = call("transport --resume run")
    assert status == 0
    assert "6/6" in err  # the bar
    assert metrics(Path("run"))["result"] == metrics(Path("run-whole"))["result"]


@pytest.fixture
def published():
    """A folder of tables in the working directory, with one row and no run."""
    Path("tables/one").mkdir(parents=True)
    Path("tables/one/expected.csv").write_text("recipe,row,clean,source\ndigits,A,90.5,B\n")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("table", "name a table; known in tables: one"),
        ("table nope", "no table 'nope'; known in tables: one"),
        ("table one --tables nowhere", "name that of the tables with --tables DIR"),
        ("table one --tables tables/one", "known in tables/one: none"),
        ("table one two", "name folders, or one published table"),
        ("table one --jsn", "onelip table --help"),
    ],
)
def test_tables_that_are_not_there(refused, published, line, message):
    refused(line, message)


@pytest.mark.parametrize("name", ["expected.csv", "results/a.json"])
def test_damaged_tables(refused, published, name):
    Path("tables/one/results").mkdir()
    Path("tables/one", name).write_bytes(b"\xff{")
    refused("table one", f"tables/one/{name} is no ")


def test_table(call, published, run):
    assert call("table one") == (
        0,
        "one: B; per cent of the test set\n\n   clean\nA   90.5  no run stored (digits)\n",
        "",
    )
    Path("tables/one/results").mkdir()
    shutil.copy(run / "metrics.json", "tables/one/results/seed0.json")
    status, out, err = call("table one --tables tables")
    assert (status, err) == (0, "")
    (ours,) = (line for line in out.splitlines() if line.startswith("  onelip"))
    content = metrics(run)
    assert f"{100 * content['certify']['test']['clean']:.2f}" in ours
    assert f"3 epochs (recipe: {RECIPES['digits'].epochs})" in ours
    assert "network.conv_layers 1; network.channels 4" in ours
    status, out, err = call("table one --json")
    assert (status, err) == (0, "")
    (row,) = json.loads(out)["rows"]
    assert row["published"] == {"clean": 90.5}
    assert row["ours"][0]["bound"] == content["certify"]["bound"]
