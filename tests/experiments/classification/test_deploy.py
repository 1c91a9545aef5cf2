"""From a run to files that others use: networks, predictions, radii of all test images."""

import csv
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import safetensors
import safetensors.torch
import torch
from PIL import Image
from pyarrow import parquet

import onelip
from onelip.cli import main
from onelip.data import load as load_images
from onelip.experiments.classification import ClassificationFolder, Recipe, train

TINY = Recipe(
    "tiny",
    "an example",
    "digits",
    "cpl_digits",
    network={
        "conv_layers": 1,
        "channels": 4,
        "hidden_channels": 4,
        "linear_layers": 1,
        "features": 16,
    },
    batch_size=64,
    validation=150,
    epochs=2,
    eps=(0.1,),
)
NAMES = ["dark", "bright"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = ClassificationFolder.create(TINY, tmp_path_factory.mktemp("deploy") / "run")
    assert train(run, progress=False)
    return run.path


@pytest.fixture
def run(trained, tmp_path, monkeypatch):
    """Return a copy of the run as ``run`` in the working directory."""
    shutil.copytree(trained, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return ClassificationFolder.open("run")


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Return a folder with a run on images of one's own, and one on a table of one's own."""
    folder, draw = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    for place, name in enumerate(NAMES):
        (folder / "images" / name).mkdir(parents=True)
        for number in range(20):
            pixels = draw.integers(0, 130, (4, 6)) + 120 * place
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"images/{name}/{number}.png")
    labels = draw.integers(0, 2, 60)
    rows = draw.normal(size=(60, 2)) * [0.3, 300.0] + labels[:, None] * [1.5, -2000.0]
    lines = [f"{a!r},{b!r},{NAMES[y]}" for (a, b), y in zip(rows.tolist(), labels, strict=True)]
    (folder / "table.csv").write_text("\n".join(["thin,wide,kind", *lines]) + "\n")
    np.save(folder / "rows.npy", rows[:7])
    dense = "train dense --network.features [8] --epochs 3 --batch_size 16 --attack_samples 0"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ONELIP_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        for line in (
            "--data images --size 4 --out pictures",
            "--data table.csv --label kind --out rows",
        ):
            assert main(f"{dense} --quiet {line}".split()) == 0
    return folder


@pytest.fixture
def within(own, tmp_path, monkeypatch):
    """Work in a copy of that folder."""
    shutil.copytree(own, tmp_path / "own")
    monkeypatch.setenv("ONELIP_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path / "own")


@pytest.fixture
def call(capsys):
    def call(*line):
        capsys.readouterr()
        status = main([*map(str, line)])
        return status, *capsys.readouterr()

    return call


@pytest.fixture
def refused(call, tmp_path):
    """Status 2, one line, and no file more or less."""

    def refused(message, *line):
        before = sorted(tmp_path.rglob("*"))
        status, out, err = call(*line)
        assert (status, out) == (2, "")
        assert len(err.splitlines()) == 1
        assert message in err
        assert sorted(tmp_path.rglob("*")) == before

    return refused


def images(count):
    return load_images("digits", "test").inputs[:count]


# onelip.load


def test_a_run_is_loaded_as_it_is_certified(run):
    network = onelip.load("run")
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    own = onelip.export(run.load_model())
    x = images(20).float() / 255
    assert torch.equal(network(x), own(x))
    assert onelip.lipschitz_bound(network) == onelip.lipschitz_bound(own)
    assert torch.equal(onelip.certify(network, x).radius, onelip.certify(own, x).radius)
    assert network.info.shape == (1, 8, 8)
    assert network.info.classes == tuple("0123456789")
    assert (network.info.unit, network.info.box) == ("pixels in [0, 1]", (0.0, 1.0))


def test_what_is_no_run_is_one_line(run, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.onnx").write_bytes(b"nothing")
    (tmp_path / "bad.pt2").write_bytes(b"nothing")
    for name, message in {
        "empty": "is no run folder: it has no metrics.json",
        "missing": "is no run folder",
        "bad.onnx": "bad.onnx cannot be read",
        "bad.pt2": "bad.pt2 cannot be read",
        "missing.pt2": "missing.pt2 does not exist",
    }.items():
        with pytest.raises(onelip.errors.UsageError, match=message):
            onelip.load(tmp_path / name)
    (run.path / "model.safetensors").unlink()
    with pytest.raises(onelip.errors.UsageError, match="run has no model yet"):
        onelip.load("run")


# onelip export


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("onnx_registry_once")
def test_onnx_with_radii(run, call):
    status, out, _ = call("export", "run", "--format", "onnx", "--with-radius")
    assert status == 0
    assert out.startswith("run/network.onnx: logits and radii of level real; proved Lipschitz ")
    x = images(50).float() / 255
    session = onnxruntime.InferenceSession("run/network.onnx")
    logits, radius = session.run(["logits", "radius"], {"input": x.numpy()})
    proved = onelip.certify(onelip.load("run"), x)
    assert logits.argmax(1).tolist() == proved.prediction.tolist()
    assert np.allclose(radius, proved.radius, rtol=1e-3, atol=1e-5)
    file = onelip.load("run/network.onnx")
    assert file.info == run.info
    assert torch.allclose(file(x), onelip.load("run")(x), atol=1e-5)


@pytest.mark.filterwarnings("ignore")
def test_a_program_with_radii_of_level_float(run, call):
    status, out, _ = call("export", "run", "-o", "net.pt2", "--with-radius", "--reach", "8")
    assert status == 0
    assert "radii of level float" in out
    x = images(50).float() / 255
    outputs = torch.export.load("net.pt2").module()(x)
    assert bool((outputs["radius"] <= onelip.certify(onelip.load("run"), x).radius).all())
    assert float((outputs["radius"] > 0).double().mean()) > 0.9
    assert torch.equal(onelip.load("net.pt2")(x), outputs["logits"])


def test_weights_alone(run, call):
    status, out, _ = call("export", "run", "-o", "net.safetensors")
    assert status == 0
    assert out.startswith("net.safetensors: weights; proved Lipschitz bound ")
    weights = safetensors.torch.load_file("net.safetensors")
    network = onelip.load("run")
    assert {name: value.shape for name, value in weights.items()} == {
        name: value.shape for name, value in network.state_dict().items()
    }
    with safetensors.safe_open("net.safetensors", "pt") as file:
        assert json.loads(file.metadata()["onelip.notes"])["data"]["shape"] == [1, 8, 8]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("export run", "needs -o FILE, or --format"),
        ("export run -o net.txt", "net.txt: name a file that ends in .onnx, .pt2, .safetensors"),
        ("export run -o no/net.pt2", "name a file in a folder that exists"),
        ("export run --format onnx -o net.pt2", "net.pt2 does not end in .onnx"),
        ("export run -o net.safetensors --with-radius", "holds weights and no graph"),
        ("export run -o net.pt2 --reach 3", "add --with-radius"),
        ("export run -o net.pt2 --method liplt", "add --with-radius"),
        ("export run -o net.pt2 --with-radius --reach 0", "reach is the length"),
        ("export run -o net.pt2 --with-radius --method local", "depend on more than the logits"),
        ("export run -o net.pt2 --with-radius --method foo", "no method 'foo'"),
        ("export nowhere -o net.pt2", "nowhere is no run folder"),
        ("predict run", "onelip predict --help"),
        ("predict run missing.png", "missing.png: No such file"),
        ("predict run missing.npy", "missing.npy: No such file"),
        ("predict run run/metrics.json", "name files that end in .png"),
        ("predict run wide.png", "wide.png is 1x8x9, expected 1x8x8"),
        ("predict run bad.npy", "cannot read bad.npy"),
        ("predict run words.npy", "words.npy holds <U1"),
        ("predict run flat.npy", "flat.npy has shape (3, 64): (1, 8, 8) or (n, 1, 8, 8)"),
        ("predict run none.npy", "nothing to predict"),
        ("predict run bright.npy", "leave [0, 1]"),
        ("predict run one.npy --out a.xlsx", "a.xlsx: name a file that ends in .csv, .json"),
        ("predict run one.npy --out no/a.csv", "name a file in a folder that exists"),
        ("certify run --out a.txt", "a.txt: name a file that ends in .csv, .json, .parquet"),
    ],
)
def test_bad_input_is_one_line(line, message, run, refused):
    Image.fromarray(np.zeros((8, 9), np.uint8)).save("wide.png")
    Path("bad.npy").write_bytes(b"nothing")
    np.save("words.npy", np.array(["a"]))
    np.save("flat.npy", np.zeros((3, 64), np.float32))
    np.save("none.npy", np.zeros((0, 1, 8, 8), np.float32))
    np.save("bright.npy", np.full((1, 8, 8), 255, np.float32))
    np.save("one.npy", np.zeros((1, 8, 8), np.uint8))
    refused(message, *line.split())


# onelip predict


def test_images_and_arrays_get_classes_and_radii(run, call):
    pixels = images(6)
    for number, image in enumerate(pixels[:2]):
        Image.fromarray(image[0].numpy()).save(f"{number}.png")
    np.save("bytes.npy", pixels[2:4].numpy())
    np.savez("wide.npz", a=(pixels[4].double() / 255).numpy(), b=(pixels[5, 0].double() / 255))
    files = ["0.png", "1.png", "bytes.npy", "wide.npz"]
    status, out, _ = call("predict", "run", *files, "--out", "found.json")
    assert status == 0
    stored = json.loads(Path("found.json").read_text())
    names = ["0.png", "1.png", "bytes.npy[0]", "bytes.npy[1]", "wide.npz:a", "wide.npz:b"]
    assert [row["file"] for row in stored["samples"]] == names
    network = onelip.load("run")
    proved = onelip.certify(network, pixels[:4].float() / 255)
    wide = onelip.certify(network.double(), pixels[4:].double() / 255)
    radii = [*proved.radius.tolist(), *wide.radius.tolist()]
    labels = [*proved.prediction.tolist(), *wide.prediction.tolist()]
    assert [row["radius"] for row in stored["samples"]] == radii
    assert [row["prediction"] for row in stored["samples"]] == labels
    assert [row["class"] for row in stored["samples"]] == [*map(str, labels)]
    assert stored["rests_on"]["level"] == "real"
    assert stored["rests_on"]["bound"] == float(proved.bound)
    for row, name, label, radius in zip(out.splitlines()[1:7], names, labels, radii, strict=True):
        file, word, printed = row.split()
        assert (file, word) == (name, str(label))
        assert radius * (1 - 1e-5) <= float(printed) <= radius
    assert "pixels in [0, 1]; product, level real" in out


# onelip certify --out


def test_radii_of_all_test_images(run, call):
    for name in ("radii.csv", "radii.json", "radii.parquet"):
        status, out, _ = call("certify", "run", "--out", name)
        assert status == 0
        assert f"written {name}" in out
    stored = safetensors.torch.load_file("run/certificates.safetensors")
    columns = ["index", "label", "prediction", "radius"]
    with open("radii.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == columns
    assert [float(row["radius"]) for row in rows] == stored["radius"].tolist()
    assert [int(row["label"]) for row in rows] == stored["labels"].tolist()
    content = json.loads(Path("radii.json").read_text())
    assert [row["radius"] for row in content["samples"]] == stored["radius"].tolist()
    table = parquet.read_table("radii.parquet")
    assert table.column_names == columns
    assert table["radius"].to_pylist() == stored["radius"].tolist()
    beside = json.loads(Path("radii.csv.json").read_text())
    assert json.loads(table.schema.metadata[b"onelip"]) == beside == content["rests_on"]
    assert (beside["level"], beside["method"], beside["data"]) == ("real", "product", "digits")
    assert beside["bound"] == run.read()["certify"]["bound"]


def test_an_infinite_radius_is_the_largest_number_in_json(tmp_path):
    from onelip.experiments.radius_files import write_table

    write_table(tmp_path / "a.json", {"radius": [float("inf")]}, {})
    (row,) = json.loads((tmp_path / "a.json").read_text())["samples"]
    assert row["radius"] == sys.float_info.max


# Data of one's own


@pytest.mark.usefixtures("within")
def test_images_of_ones_own_have_names_and_are_scaled_as_for_training(call):
    status, out, err = call("predict", "pictures", "images/dark/0.png", "images/bright/0.png")
    assert (status, err) == (0, "")
    network = onelip.load("pictures")
    assert sorted(network.info.classes) == sorted(NAMES)
    assert network.info.shape == (1, 4, 4)
    pixels = np.stack([np.asarray(Image.open(f"images/{name}/0.png"))[:, 1:5] for name in NAMES])
    proved = onelip.certify(network, torch.from_numpy(pixels)[:, None].float() / 255)
    words = [network.info.classes[label] for label in proved.prediction.tolist()]
    assert [row.split()[1] for row in out.splitlines()[1:3]] == words
    printed = [float(row.split()[2]) for row in out.splitlines()[1:3]]
    assert printed == pytest.approx(proved.radius.tolist(), rel=1e-5)
    assert call("certify", "pictures", "--out", "radii.csv")[0] == 0
    with open("radii.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[4:] == ["label_name", "prediction_name"]
    assert all(
        row["label_name"] == network.info.classes[int(row["label"])]
        and row["prediction_name"] == network.info.classes[int(row["prediction"])]
        for row in rows
    )


@pytest.mark.usefixtures("within")
def test_tables_of_ones_own_are_predicted_and_exported_in_float64(call):
    status, out, err = call("predict", "rows", "rows.npy")
    assert (status, err) == (0, "")
    assert "radii: l2, units of the table; product, level real" in out
    network, x = onelip.load("rows"), torch.from_numpy(np.load("rows.npy"))
    proved = onelip.certify(network, x, box=None)
    printed = [float(row.split()[2]) for row in out.splitlines()[1:8]]
    assert printed == pytest.approx(proved.radius.tolist(), rel=1e-5)
    status, out, err = call("export", "rows", "-o", "rows.pt2", "--with-radius", "--reach", "1e5")
    assert (status, err) == (0, "")
    outputs = torch.export.load("rows.pt2").module()(x)
    assert bool((outputs["radius"] <= proved.radius).all())
    assert torch.allclose(outputs["radius"], proved.radius, rtol=1e-6)
    assert onelip.load("rows.pt2").info == network.info
    status, _, err = call("predict", "rows", "images/dark/0.png")
    assert status == 2
    assert "is an image, and the run is about 2 columns" in err
