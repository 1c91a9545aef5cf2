"""Runs on one's own data, with one's own recipes, models and losses, through every command."""

import contextlib
import itertools
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from onelip import export
from onelip.attacks import APGD, FMN, UnitBox, attack_radii
from onelip.cli import main
from onelip.errors import OnelipError
from onelip.experiments import own_code
from onelip.experiments.classification import ClassificationFolder
from onelip.experiments.own_code import find, located
from onelip.experiments.recipes.user_recipes import find_recipe, read_recipe
from tests.mutations import mutations

NETS = """
from torch import nn

from onelip.layers import CholeskyLinear, MaxMin, UnitNormLinear


def build(input_shape, classes, *, width: int = 4, **more):
    size = 1
    for side in input_shape:
        size *= side
    return nn.Sequential(
        nn.Flatten(), CholeskyLinear(size, width), MaxMin(), UnitNormLinear(width, classes)
    )


def wrong(input_shape, classes):
    return build(input_shape, classes + 1)


def broken(input_shape, classes):
    return nothing


class Margin(nn.Module):
    def __init__(self, margin: float = 0.5):
        super().__init__()
        self.margin = margin

    def forward(self, logits, labels):
        return nn.functional.multi_margin_loss(logits, labels, margin=self.margin)
"""

RECIPE = """
about: a small net
model: nets.py:build
network: {width: 8, unknown: 1}
loss: nets.py:Margin
objective: {margin: 3e-1}
epochs: 1
batch_size: 16
lr: 1e-2
eps: [0.05, 0.1]
attack_samples: 2
attack_steps: 2
threads: 1
"""


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.setenv("ONELIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(own_code, "_FILES", {})
    monkeypatch.setattr(own_code, "_SAID", set())
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path("nets.py").write_text(NETS)
    Path("my.yaml").write_text(RECIPE)
    return tmp_path / "here"


@pytest.fixture
def call(capsys):
    def call(line):
        capsys.readouterr()
        status = main(shlex.split(line))
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def images(here):
    draw = np.random.default_rng(0)
    for name, offset in (("hell", 120), ("dunkel·ü", 0)):
        Path("images", name).mkdir(parents=True)
        for number in range(20):
            pixels = draw.integers(0, 130, (4, 4)) + offset
            Image.fromarray(pixels.astype(np.uint8)).save(f"images/{name}/{number}.png")


def metrics(run):
    return json.loads((run / "metrics.json").read_text())


def one_line(err, message):
    assert err.startswith("onelip: "), err
    assert err.count("\n") == 1, err
    assert message in err


@pytest.mark.usefixtures("images")
def test_every_command_knows_the_run(call, here, monkeypatch, tmp_path):
    status, out, err = call("train my.yaml --data images --network.width 6 --quiet --out run")
    assert (status, err) == (0, "")
    assert "images of 1 x 4 x 4, 2 classes (dunkel·ü, hell); train 29, validation 3" in out
    record = metrics(here / "run")
    assert record["recipe"]["name"] == "my"
    assert record["recipe"]["dataset"] == "own"
    assert record["recipe"]["validation"] == 3
    assert record["recipe"]["network"] == {"width": 6, "unknown": 1}
    assert record["recipe"]["objective"] == {"margin": 0.3}
    assert record["code"].keys() == {"recipe", "model", "loss"}
    assert record["data"]["classes"] == ["dunkel·ü", "hell"]
    assert record["data"]["folder"] == str(here / "images")
    counts = {split: part["count"] for split, part in record["data"]["splits"].items()}
    assert counts == {"train": 29, "validation": 3, "test": 8}
    assert record["certify"]["test"]["samples"] == 8
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    run = here / "run"
    for line in (
        f"certify {run}",
        f"attack {run} --samples 2 --attacks fgm",
        f"bound {run} --seconds 0.1",
        f"prove {run} -o bundle --samples 2",
        f"plot {run}",
        f"predict {run} {here}/images/hell/1.png",
        f"train --resume {run} --quiet",
    ):
        status, out, err = call(line)
        assert (status, err) == (0, ""), line
    assert metrics(run)["data"] == record["data"]
    with (here / "nets.py").open("a") as file:
        file.write("# another\n")
    status, out, err = call(f"certify {run}")
    assert status == 0
    one_line(err, "nets.py has changed since the run was started")
    (here / "images").rename(here / "moved")
    status, out, err = call(f"certify {run}")
    assert (status, out) == (2, "")
    assert "no file or folder" in err
    assert call(f"certify {run} --data {here / 'moved'}")[0] == 0
    Image.new("L", (4, 4)).save(here / "moved" / "hell" / "0.png")
    status, out, err = call(f"attack {run} --data {here / 'moved'}")
    assert (status, out) == (2, "")
    assert "holds other data than the run was started with" in err


def test_a_table_in_its_own_units(call, here):
    """The radius of every test row holds in the units of the table, and the scaling is in it."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 2, 60)
    rows = draw.normal(size=(60, 2)) * [0.3, 300.0] + labels[:, None] * [1.5, -2000.0]
    lines = [f"{a},{b},{'bad' if y else 'good'}" for (a, b), y in zip(rows, labels, strict=True)]
    Path("table.csv").write_text("\n".join(["thin,wide,quality", *lines]) + "\n")
    line = (
        "train dense --data table.csv --label quality --network.features [8] --epochs 30 --lr 3e-2 "
        "--batch_size 16 --eps 0.2,1.2 --attack_steps 20 --quiet --out run"
    )
    status, out, err = call(line)
    assert (status, err) == (0, "")
    assert "0.2 " in out
    assert "/255" not in out
    run = ClassificationFolder.open("run")
    data, info = run.data(), run.info
    assert info.columns == ("thin", "wide")
    assert info.std[0] < 2 < 200 < info.std[1]
    model = export(run.load_model()).double()
    certify = run.read()["certify"]
    assert certify["body_bound"] == pytest.approx(1 / info.std[0], rel=1e-6)
    assert certify["logits"] == "float64, cpu"
    assert certify["test"]["certified"]["0.2"] > 0.5
    (attack,) = run.read()["attack"].values()
    assert attack["eps"][0]["attacked"] > attack["eps"][1]["attacked"]
    for row in attack["eps"]:
        assert certify["test"]["certified"][repr(row["eps"])] <= row["attacked"]
    from safetensors.torch import load_file

    radius = load_file("run/certificates.safetensors")["radius"]
    x, y = data.test.inputs, data.test.labels
    steps = torch.randn(200, len(x), 2, dtype=torch.float64)
    steps[:, :, 1] *= torch.rand(200, 1, dtype=torch.float64)
    moved = x + 0.999 * radius[:, None] * steps / steps.norm(dim=-1, keepdim=True)
    right = radius > 0
    assert right.double().mean() > 0.5
    assert (model(moved[:, right].flatten(0, 1)).argmax(1) == y[right].repeat(200)).all()
    # the nearest other prediction is not far outside, so that the radii are in these units
    beyond = x.clone()
    beyond[:, 0] += torch.where(y == data.info.classes.index("bad"), -3.0, 3.0)
    assert (model(beyond).argmax(1) != y).double().mean() > 0.5
    Path("new.csv").write_text("wide,thin,more\n-2000,1.5,x\n0,0,y\n")
    status, out, err = call("predict run new.csv")
    assert (status, err) == (0, "")
    assert [line.split()[-2] for line in out.splitlines()[1:3]] == ["bad", "good"]
    Path("new.csv").write_text("wide,thick\n1,2\n")
    one_line(call("predict run new.csv")[2], "new.csv has no column 'thin'")
    content = json.loads(run.record.read_text())
    record = {key: content[key] for key in ("recipe", "data")}
    for what, text in itertools.islice(mutations(record), 0, None, 17):
        if what.startswith("data"):  # whatever is in it, there is no traceback
            run.record.write_text(text)
            with contextlib.suppress(OnelipError):
                _ = ClassificationFolder.open("run").info
            with contextlib.suppress(OnelipError):
                ClassificationFolder.open("run").data()
    run.record.write_text(json.dumps(content))
    status, out, err = call("certify run --precision 32")
    assert (status, out) == (2, "")
    one_line(err, "would round the numbers of a table")
    status, out, err = call(line.replace("--out run", "--crop 2 --out other"))
    assert (status, err.count("\n")) == (2, 1)
    assert "rows of a table are not moved: --crop 0" in err
    assert not Path("other").exists()


def test_attacks_in_a_box_of_any_size():
    """Distances to a plane are known: what is nearer is broken, what is farther is not."""
    layer = nn.Linear(3, 2).double()
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0.0, 0, 0], [3e-3, 0, 4e-3]]))
        layer.bias.copy_(torch.tensor([0.0, -5.0]))
    x = torch.tensor([[1000.0, 4e5, 1000.0]], dtype=torch.float64).repeat(4, 1)
    x[:, 2] -= torch.tensor([0.0, 100.0, 200.0, 300.0])  # 400, 320, 240, 160 from the plane
    labels = layer(x).argmax(1)
    model = UnitBox.around(layer, x, 500.0)
    u = model.inputs(x)
    assert 0 <= float(u.min()) <= float(u.max()) <= 1
    assert torch.allclose(model(u), layer(x), rtol=0, atol=1e-9)
    radii = [200.0, 390.0, 401.0]
    assert all(0.99999 * eps < model.radius(eps) * model.width < eps for eps in radii)
    broken = attack_radii(model, u, labels, [model.radius(r) for r in radii], [FMN(30), APGD()])
    assert [b.tolist() for b in broken] == [
        [False, False, False, True],
        [False, True, True, True],
        [True] * 4,
    ]
    assert model.radius(1e-30) == 0


@pytest.mark.usefixtures("images")
@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train lipconvnet-5-cifar10", "32 does not divide 4 x 4"),
        ("train kw_small", "no recipe 'kw_small': onelip recipes lists them"),
        ("train digits --network.mean [0.1,0.2,0.3]", "per channel"),
        ("train cpl-s-cifar10", "per channel"),
        ("train my.yaml --batch_size 30", "exceeds 29 training rows: choose at most that"),
        ("train my.yaml --validation 31", "choose 1 to 30"),
        ("train my.yaml --size 0", "--size takes a side or HEIGHTxWIDTH"),
        ("train my.yaml --label y", "--label names a column of a table"),
        ("train my.yaml --model nets.py:nothing", "there is no 'nothing' in it, but build, wrong"),
        ("train my.yaml --model nets.py:wrong", "returns (2, 3) for two inputs, not logits of"),
        ("train my.yaml --model nets.py:broken", "name 'nothing' is not defined"),
        ("train my.yaml --model nets.py:nn", "a module builds nothing"),
        ("train my.yaml --model no_such.nets:build", "there is no module no_such"),
        ("train my.yaml --model bad.py:build", "SyntaxError"),
        ("train my.yaml --model raises.py:build", "ZeroDivisionError: division by zero, line 2 of"),
        ("train my.yaml --model missing.py:build", "no file"),
        ("train my.yaml --network.width x", "onelip train my.yaml --help"),
        ("train nets.py:build", "is a function, not a Recipe"),
        ("train missing.yaml", "missing.yaml cannot be read"),
        ("train list.yaml", "holds no entries such as 'model: mnist_dense'"),
        ("train bad.yaml", "bad.yaml is no YAML"),
        ("train field.yaml", "unknown setting 'epoch'"),
        ("train type.yaml", "expected int, got str - at epochs"),
        ("train base.yaml", "no recipe 'nothing' to begin with"),
        ("train name.yaml", "a name consists of letters"),
    ],
)
def test_what_cannot_be_trained(call, line, message):
    Path("bad.py").write_text("def build(:\n")
    Path("raises.py").write_text("x = 0\n1 / x\n")
    Path("list.yaml").write_text("- 1\n")
    Path("bad.yaml").write_text("a: [1\n")
    Path("field.yaml").write_text(RECIPE + "epoch: 3\n")
    Path("type.yaml").write_text("model: fc3\nepochs: many\n")
    Path("base.yaml").write_text("base: nothing\n")
    Path("name.yaml").write_text("model: fc3\nname: ../up\n")
    before = sorted(map(str, Path().rglob("[!_]*")))
    status, _, err = call(f"{line} --data images --quiet --out run")
    assert status == 2
    one_line(err, message.replace(" - at", " at"))
    assert [name for name in sorted(map(str, Path().rglob("[!_]*"))) if "pycache" not in name] == [
        name for name in before if "pycache" not in name
    ]


def test_recipes_from_files_and_objects(here):
    Path("more.yaml").write_text("base: digits\nnetwork: {pool: 4}\nlr: 1e-3\n")
    recipe = read_recipe(Path("more.yaml"))
    base, code = find_recipe("digits")
    assert (base.name, code) == ("digits", {})
    assert (recipe.name, recipe.lr, recipe.dataset) == ("more", 1e-3, "digits")
    assert recipe.network == {**base.network, "pool": 4}
    assert recipe.eps == base.eps
    Path("more.yaml").write_text("base: digits\nmodel: fc3\n")
    assert read_recipe(Path("more.yaml")).network == {}
    Path("mine.py").write_text(
        "from onelip.experiments.classification import Recipe\n"
        "recipe = Recipe('mine', 'one', 'own', 'nets.py:build', epochs=3)\n"
    )
    for name in ("mine:recipe", "mine.py:recipe"):
        recipe, code = find_recipe(name)
        assert (recipe.name, recipe.epochs) == ("mine", 3)
        assert recipe.model == f"{here}/nets.py:build"
        assert code["recipe"]["file"] == str(here / "mine.py")


def test_entry_points(monkeypatch):
    from importlib.metadata import EntryPoint

    entry = EntryPoint("mine", "onelip.models.kw:fc3", "onelip.models")
    monkeypatch.setattr(
        own_code, "entry_points", lambda group, name: [entry] if name == entry.name else []
    )
    from onelip.models import fc3

    assert find("model", "mine", {}) is fc3
    assert located("mine", Path("/x")) == "mine"
    assert own_code.source("model", "mine", {})["file"].endswith("kw.py")
