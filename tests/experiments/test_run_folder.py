"""Run folders of every command: nothing overwritten, nothing half written, nothing left over."""

import dataclasses
import json

import pytest
import torch
from torch import nn

from onelip.errors import UsageError
from onelip.experiments.classification import ClassificationFolder
from onelip.experiments.provenance import environment
from onelip.experiments.recipes import RECIPES
from onelip.experiments.transport.folder import TransportFolder
from onelip.experiments.transport.settings import TransportSettings
from onelip.experiments.wgan.folder import WGANFolder
from onelip.experiments.wgan.settings import WGANSettings

RECIPE = dataclasses.replace(RECIPES["digits"], network=dict(RECIPES["digits"].network))
KINDS = {
    "train": (ClassificationFolder, RECIPE, "digits-2"),
    "wgan": (WGANFolder, WGANSettings("mnist", critic_lr=0.3), "wgan-mnist-2"),
    "transport": (
        TransportFolder,
        TransportSettings(p="a.npy", q="b.npy", widths=(3, 4)),
        "transport-2",
    ),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


@pytest.fixture
def folder(kind, tmp_path):
    return kind[0].create(kind[1], tmp_path / "run")


def settings_of(folder):
    return folder.recipe if isinstance(folder, ClassificationFolder) else folder.settings


def names(path):
    return sorted(file.name for file in path.iterdir())


def test_a_folder_knows_its_settings(kind, folder):
    again = kind[0].open(folder.path)
    assert settings_of(again) == settings_of(folder) == kind[1]
    content = again.read()
    assert content.keys() == {kind[0].key, *environment(), "sessions"}
    assert content["sessions"] == []
    again.note_session()
    again.note_session()
    assert [{*session} for session in again.read()["sessions"]] == 2 * [{*environment()}]


def test_a_folder_of_its_own(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind[0].create(kind[1], None)
    assert [name.startswith(kind[2]) for name in names(tmp_path / "runs")] == [True]


def test_entries_are_added(kind, folder):
    before = folder.read()
    folder.write({"bound": {"exported": 1.0}})
    assert kind[0].open(folder.path).read() == {**before, "bound": {"exported": 1.0}}
    folder.write({"bound": {}})
    assert folder.read() == {**before, "bound": {}}
    with pytest.raises(TypeError):
        folder.write({"bound": object()})
    assert folder.read() == {**before, "bound": {}}
    assert names(folder.path) == ["metrics.json"]


def test_folders_are_not_overwritten(kind, folder):
    command = f"onelip {folder.command} --resume {folder.path}"
    before = folder.read()
    with pytest.raises(UsageError, match=f"choose another --out, or go on with {command}"):
        kind[0].create(kind[1], folder.path)
    assert folder.read() == before
    with pytest.raises(UsageError, match=r"cannot be made: .*; choose another --out"):
        kind[0].create(kind[1], folder.record / "run")


def test_discard_leaves_what_was_there(kind, tmp_path):
    (tmp_path / "a").mkdir()
    kind[0].create(kind[1], tmp_path / "a/b/c").discard()
    assert names(tmp_path) == ["a"]
    assert names(tmp_path / "a") == []
    run = kind[0].create(kind[1], tmp_path / "a/b/c")
    (tmp_path / "a/b/other").touch()
    run.discard()
    assert names(tmp_path / "a/b") == ["other"]
    run = kind[0].create(kind[1], tmp_path / "a/b/c")
    kind[0].open(run.path).discard()  # another process did not make it
    assert run.path.exists()
    run.save_checkpoint({})
    run.discard()
    assert run.path.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "is no run folder: it has no metrics.json; onelip {command} makes one"),
        (b"{", "cannot be read .*: name the folder of another run"),
        (b"\xff\x00", "cannot be read .*: name the folder of another run"),
        (b"[]", "has no entry '{key}': name a folder written by onelip {command}"),
        (b'{"other": {}}', "has no entry '{key}': name a folder written by onelip {command}"),
    ],
)
def test_what_is_no_folder(kind, folder, text, message):
    folder.record.unlink()
    if text is not None:
        folder.record.write_bytes(text)
    with pytest.raises(UsageError, match=message.format(command=folder.command, key=folder.key)):
        kind[0].open(folder.path)


@pytest.mark.parametrize("stored", [3, [], {"nothing": 1}, None])
def test_settings_of_another_version(folder, stored):
    folder.record.write_text(json.dumps({folder.key: stored}))
    with pytest.raises(
        UsageError, match=r"(no valid settings|cannot be read) .*: name the folder of another run"
    ):
        settings_of(folder)


def test_weights(folder):
    model, other = nn.Linear(2, 3), nn.Linear(2, 3)
    again = f"onelip {folder.command} --resume {folder.path} writes it"
    with pytest.raises(UsageError, match=f"has no part yet: {again}"):
        folder.load_weights("part", model)
    folder.save_weights("part", model)
    folder.load_weights("part", other)
    assert torch.equal(model.weight, other.weight)
    assert names(folder.path) == ["metrics.json", "part.safetensors"]
    with pytest.raises(UsageError, match=f"corrupt or of another part .*: {again} again"):
        folder.load_weights("part", nn.Linear(3, 3))
    (folder.path / "part.safetensors").write_bytes(b"no")
    with pytest.raises(UsageError, match=r"part\.safetensors is corrupt"):
        folder.load_weights("part", model)


def test_checkpoints(folder):
    with folder.load_checkpoint() as state:
        assert state is None
    folder.save_checkpoint({"step": 3, "values": torch.ones(2)})
    with folder.load_checkpoint() as state:
        assert state["step"] == 3
        assert torch.equal(state["values"], torch.ones(2))
    message = f"{folder.checkpoint.name} is corrupt or of another run: start again"
    with pytest.raises(UsageError, match=message), folder.load_checkpoint() as state:
        state["nothing"]
    folder.checkpoint.write_bytes(b"no")
    with pytest.raises(UsageError, match=message), folder.load_checkpoint():
        pass


def test_ctrl_c_while_loading_stays_what_it_is(folder):
    folder.save_checkpoint({})
    with pytest.raises(KeyboardInterrupt), folder.load_checkpoint():
        raise KeyboardInterrupt
