"""Runs as repositories of the hub: what is loaded is what the card says."""

import json
import re
import shutil
import sys
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch

import onelip
from onelip import hub
from onelip.cli import main
from onelip.errors import UsageError
from onelip.experiments.classification import ClassificationFolder, Recipe, certify_run, train

NETWORK = {
    "conv_layers": 1,
    "channels": 4,
    "hidden_channels": 4,
    "linear_layers": 1,
    "features": 16,
}
RECIPE = Recipe(
    "tiny",
    "An example",
    "digits",
    "cpl_digits",
    network=NETWORK,
    validation=150,
    epochs=2,
    lr=5e-3,
    batch_size=64,
    eps=(0.05, 0.1),
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    torch.set_num_threads(1)
    run = ClassificationFolder.create(RECIPE, tmp_path_factory.mktemp("runs") / "run")
    assert train(run, progress=False)
    certify_run(run)
    data = {**run.read()["data"], "folder": "/home/somebody/data"}
    eps = [{"eps": 0.05, "certified": 0.1, "attacked": 0.25}]
    found = {"attacks": ["x"], "samples": 450, "clean": 0.5, "eps": eps, "seconds": 1.0}
    run.write({"data": data, "attack": {"x on 450 images": found}})
    return run


@pytest.fixture(scope="module")
def saved(run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "tiny"
    hub.save(run.path, folder, license="mit")
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "copy")


def change(file, old, new):
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


def refused(folder, match):
    with pytest.raises(UsageError, match=match) as error:
        hub.load(folder)
    assert "\n" not in str(error.value)


def test_loaded_is_what_was_saved(run, saved):
    assert {file.name for file in saved.iterdir()} == {*hub.FILES}
    assert [file.name for file in saved.parent.iterdir()] == ["tiny"]  # nothing temporary is left
    found = hub.load(saved)
    images = torch.rand(20, 1, 8, 8)
    expected = onelip.certify(onelip.export(run.load_model()), images)
    certificate = onelip.certify(found.network, images)
    assert torch.equal(certificate.radius, expected.radius)
    assert found.bound == pytest.approx(run.read()["certify"]["bound"])


def test_card(run, saved):
    record = run.read()
    test = record["certify"]["test"]
    card = huggingface_hub.ModelCard.load(saved / "README.md")
    numbers = {result.metric_name: result.metric_value for result in card.data.eval_results}
    assert numbers == {
        "clean accuracy": round(100 * test["clean"], 2),
        "certified accuracy, l2 radius 0.05": round(100 * test["certified"]["0.05"], 2),
        "certified accuracy, l2 radius 0.1": round(100 * test["certified"]["0.1"], 2),
        "accuracy under attack, l2 radius 0.05 (x on 450 images)": 25.0,
        "proved Lipschitz bound": record["certify"]["bound"],
    }
    assert (card.data.license, card.data.library_name) == ("mit", "onelip")
    assert f"| 0.05 | {numbers['certified accuracy, l2 radius 0.05']} | 25.0 |" in card.text
    for part in ("CC BY 4.0", "margin, pairwise", "level `real`", "What it is not for"):
        assert part in card.text
    whole = "".join(path.read_text() for path in saved.iterdir() if path.suffix != ".safetensors")
    assert "/home/somebody" not in whole


def test_certified_again_from_the_folder(run, folder):
    again = certify_run(ClassificationFolder.open(folder))
    assert torch.equal(again.certificate.radius, certify_run(run).certificate.radius)
    assert (
        ClassificationFolder.open(folder).read()["certify"]["test"]
        == (run.read()["certify"]["test"])
    )


def test_other_weights(folder):
    file = folder / "model.safetensors"
    weights = safetensors.torch.load_file(file)
    name = next(name for name, w in weights.items() if name.endswith("weight") and w.ndim == 2)
    weights[name] = 3 * weights[name]
    before = hub._digest(folder)
    file.write_bytes(safetensors.torch.save(weights))
    refused(folder, "not the file that config.json names")
    change(folder / "config.json", before, hub._digest(folder))
    refused(folder, "card does not say")


def test_a_bound_that_is_too_small(folder):
    """A forger who keeps all files consistent is found by the proof."""
    bound = ClassificationFolder.open(folder).read()["certify"]["bound"]
    for file in ("metrics.json", "README.md"):
        change(folder / file, repr(bound), repr(0.9 * bound))
    refused(folder, re.escape(f"claims a bound of {0.9 * bound:.9g}"))


@pytest.mark.parametrize(
    ("file", "old", "new", "match"),
    [
        ("README.md", "value: 25.0", "value: 99.0", "card does not say"),
        ("README.md", "---\n", "", "README.md cannot be read|card does not say"),
        ("config.json", '"features": 16', '"features": 17', "describe different networks"),
        ("config.json", "{", "[", "config.json cannot be read"),
        ("metrics.json", '"cpl_digits"', '"cpl_s"', "describe different networks"),
        ("metrics.json", '"clean"', '"dirty"', "metrics.json cannot be read"),
    ],
)
def test_damage(folder, file, old, new, match):
    change(folder / file, old, new)
    refused(folder, match)


@pytest.mark.parametrize("name", ["os.system", "antigravity:fly", "FILE:build"])
def test_no_code_of_a_repository_runs(folder, name):
    """A name may be a module or a file, which a run of one's own imports."""
    code = folder / "nets.py"
    code.write_text(f"open({str(folder / 'ran')!r}, 'w').close()\n")
    name = name.replace("FILE", str(code))
    for file in ("metrics.json", "config.json"):
        change(folder / file, '"cpl_digits"', json.dumps(name))
    refused(folder, re.escape(f"no model {name!r}; known: cpl_digits"))
    assert not (folder / "ran").exists()


def test_no_folder_of_a_repository_is_searched_for_code(folder):
    code = {"name": "nets:build", "file": str(folder / "nets.py"), "sha256": "0" * 64}
    (folder / "nets.py").touch()
    record = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({**record, "code": {"model": code}}))
    refused(folder, "names code of its author's own")
    assert str(folder) not in sys.path


def test_code_and_paths_of_ones_own_are_not_published(run, tmp_path):
    other = shutil.copytree(run.path, tmp_path / "run")
    record = json.loads((other / "metrics.json").read_text())
    record["recipe"]["loss"] = "/home/somebody/nets.py:loss"
    record["code"] = {"loss": {"name": "x:y", "file": "/home/somebody/x.py", "sha256": "0" * 64}}
    (other / "metrics.json").write_text(json.dumps(record))
    hub.save(other, tmp_path / "new")
    assert "/home/somebody" not in (tmp_path / "new" / "metrics.json").read_text()
    record["recipe"]["model"] = "/home/somebody/nets.py:build"
    (other / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match="a repository holds no code"):
        hub.save(other, tmp_path / "newer")


@pytest.mark.parametrize("file", hub.FILES)
def test_a_file_that_is_missing(folder, file):
    (folder / file).unlink()
    refused(folder, file.partition(".")[0])


def test_save_refuses(run, saved, tmp_path):
    with pytest.raises(UsageError, match="exists and is not overwritten"):
        hub.save(run.path, saved)
    other = shutil.copytree(run.path, tmp_path / "run")
    record = json.loads((other / "metrics.json").read_text())
    del record["certify"]
    (other / "metrics.json").write_text(json.dumps(record))
    with pytest.raises(UsageError, match=r"is not certified: onelip certify"):
        hub.save(other, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_push_uploads_the_folder(run, monkeypatch):
    sent = {}

    class Api:
        def __init__(self, token):
            sent["token"] = token

        def create_repo(self, repository, **options):
            return type("Made", (), {"repo_id": repository})

        def upload_folder(self, *, repo_id, folder_path, commit_message):
            sent[repo_id] = {file.name for file in Path(folder_path).iterdir()}
            return "address"

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    assert hub.push(run.path, "me/tiny", token="t") == "address"
    assert sent == {"token": "t", "me/tiny": {*hub.FILES}}


def test_only_these_files_are_downloaded(saved, monkeypatch):
    def download(repository, *, revision, token, allow_patterns):
        assert (repository, revision, allow_patterns) == ("me/tiny", "v1", [*hub.FILES])
        return str(saved)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    assert hub.load("me/tiny", revision="v1").folder == saved


def test_no_such_repository(monkeypatch):
    def download(repository, **options):
        raise OSError("404\nand more")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    refused("me/none", "me/none is no folder, and cannot be had from the hub: 404")


def test_a_table_of_ones_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = torch.Generator().manual_seed(0)
    rows = [(float(torch.randn((), generator=draw)) + 3 * (i % 2), i % 2) for i in range(60)]
    lines = ["size,kind", *(f"{x},{'bad' if y else 'good'}" for x, y in rows)]
    Path("table.csv").write_text("\n".join(lines) + "\n")
    line = "train dense --data table.csv --label kind --network.features [8] --epochs 2 "
    line += "--batch_size 16 --eps 0.2 --attack_samples 0 --quiet --out run"
    assert main(line.split()) == 0
    certify_run(ClassificationFolder.open("run"))
    found = hub.save("run", "new")
    x = 100 * torch.randn(5, 1, dtype=torch.float64)
    assert onelip.certify(found.network, x, box=None).radius.shape == (5,)
    page = Path("new/README.md").read_text()
    assert "l2 radius, units of the table" in page
    assert "tabular-classification" in page
    assert "box=None" in page
    assert str(tmp_path) not in page + Path("new/metrics.json").read_text()
