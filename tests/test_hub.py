"""Runs as repositories of the hub: what is loaded is what the card says."""

import json
import re
import shutil
from pathlib import Path

import huggingface_hub
import pytest
import safetensors.torch
import torch

import onelip
from onelip import hub
from onelip.data import load
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
    images = load("digits", "test").images[:20] / 255
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


def test_a_network_is_built_by_a_known_name_only(folder):
    for file in ("metrics.json", "config.json"):
        change(folder / file, '"cpl_digits"', '"os.system"')
    refused(folder, "no model 'os.system'; known: cpl_digits")


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
