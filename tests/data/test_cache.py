"""The cache saves time and changes nothing else."""

import os

import pytest
import torch

from onelip.data import load, parquet

FILE = "train-00000-of-00001.parquet"


@pytest.fixture
def decoded(monkeypatch):
    """The number of files decoded so far."""
    calls = []
    original = parquet.decode

    def counting(*args):
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(parquet, "decode", counting)
    return calls


def test_second_load_reads_the_cache(tmp_path, write, decoded, cache_folder):
    write(tmp_path / FILE)
    first, second = (load("mnist", "train", tmp_path) for _ in range(2))
    assert len(decoded) == 1
    assert torch.equal(first.inputs, second.inputs)
    assert torch.equal(first.labels, second.labels)
    assert [path.suffix for path in cache_folder.iterdir()] == [".safetensors"]


def test_changed_source_is_decoded_again(tmp_path, write, decoded):
    write(tmp_path / FILE)
    load("mnist", "train", tmp_path)
    write(tmp_path / FILE, labels=[5, 4, 3, 2, 1])
    os.utime(tmp_path / FILE, ns=(1, 1))
    assert load("mnist", "train", tmp_path).labels.tolist() == [5, 4, 3, 2, 1]
    assert len(decoded) == 2


@pytest.mark.parametrize("keep", [0, 5, 300, -1])
def test_corrupt_cache_is_rebuilt(tmp_path, write, decoded, cache_folder, keep):
    write(tmp_path / FILE)
    first = load("mnist", "train", tmp_path)
    (stored,) = cache_folder.iterdir()
    stored.write_bytes(stored.read_bytes()[:keep])
    for _ in range(2):
        assert torch.equal(load("mnist", "train", tmp_path).inputs, first.inputs)
    assert len(decoded) == 2


def test_foreign_cache_is_rebuilt(tmp_path, write, decoded, cache_folder):
    from safetensors.torch import save_file

    write(tmp_path / FILE)
    load("mnist", "train", tmp_path)
    (stored,) = cache_folder.iterdir()
    save_file({"images": torch.zeros(2), "labels": torch.zeros(2)}, stored, {"jpeg": "no"})
    assert len(load("mnist", "train", tmp_path)) == 5
    assert len(decoded) == 2


def test_unusable_cache_folder_is_no_error(tmp_path, write, monkeypatch):
    (tmp_path / "occupied").write_text("a file, not a folder")
    monkeypatch.setenv("ONELIP_CACHE", str(tmp_path / "occupied"))
    write(tmp_path / FILE)
    assert len(load("mnist", "train", tmp_path)) == 5


def test_failed_write_leaves_no_file(tmp_path, write, monkeypatch, cache_folder):
    def fail(*args):
        raise OSError("disk full")

    monkeypatch.setattr("onelip.data.cache.os.replace", fail)
    write(tmp_path / FILE)
    assert len(load("mnist", "train", tmp_path)) == 5
    assert list(cache_folder.iterdir()) == []
