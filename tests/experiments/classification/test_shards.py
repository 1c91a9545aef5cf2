"""Shards: the same bytes from any number of processes, in any order, and after a kill."""

import hashlib
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from onelip import certify, export
from onelip.cli import main
from onelip.errors import UsageError
from onelip.experiments import jobs
from onelip.experiments.classification import ClassificationFolder, Recipe, shards, train

TINY = Recipe(
    "tiny",
    "an example",
    "digits",
    "cpl_digits",
    network={
        "conv_layers": 1,
        "channels": 2,
        "hidden_channels": 2,
        "linear_layers": 1,
        "features": 12,
    },
    batch_size=64,
    validation=150,
    epochs=1,
    eps=(0.05, 0.1),
    attack_samples=0,
)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    run = ClassificationFolder.create(TINY, tmp_path_factory.mktemp("trained") / "run")
    assert train(run, progress=False)
    return run


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def stored_images(count, name="images.npy"):
    numbers = np.random.default_rng(0).integers(0, 256, (count, 1, 8, 8), dtype=np.uint8)
    np.save(name, numbers)
    return Path(name)


def digest(folder):
    return hashlib.sha256((Path(folder) / "radii.safetensors").read_bytes()).hexdigest()


@pytest.fixture
def small(monkeypatch):
    monkeypatch.setattr(shards, "SHARD", 100)


def task_of(run, folder, count=1010, **options):
    return shards.task_of(run, Path(folder), images=stored_images(count), **options)


@pytest.mark.parametrize("method", ["product", "liplt"])
def test_any_number_of_parts_in_any_order(run, small, method):
    """11 shards, the last of 10 images, whose logits have other last bits in a larger batch."""
    for parts in (1, 2, 4, 20):
        task = task_of(run, f"by{parts}", method=method)
        assert sum(shards.certify_part(task, p, parts) for p in reversed(range(parts))) == 11
        shards.merge(task)
    assert len({digest(f"by{parts}") for parts in (1, 2, 4, 20)}) == 1
    names = {path.name for path in Path("by1").iterdir()}
    assert all(
        {path.name for path in Path(f"by{parts}").iterdir()} == names for parts in (2, 4, 20)
    )


def test_radii_are_those_of_certify(run, small):
    task = task_of(run, "shards", count=250)
    shards.certify_part(task)
    merged = shards.merge(task)
    images = torch.from_numpy(np.load("images.npy")).float() / 255
    whole = certify(export(run.load_model()), images)
    assert torch.equal(merged["prediction"], whole.prediction)
    torch.testing.assert_close(merged["radius"], whole.radius, rtol=1e-3, atol=1e-7)
    assert merged["radius"].dtype == torch.float64
    for first in (0, 100, 200):
        alone = certify(export(run.load_model()), images[first : first + 100])
        assert torch.equal(merged["radius"][first : first + 100], alone.radius)


def test_folders_of_shards_are_copied_together(run, small):
    for part in (0, 1):
        shards.certify_part(task_of(run, f"machine{part}"), part, 2)
    Path("both").mkdir()
    for part in (0, 1):
        for path in Path(f"machine{part}").iterdir():
            (Path("both") / path.name).write_bytes(path.read_bytes())
    both, one = task_of(run, "both"), task_of(run, "one")
    assert shards.certify_part(both) == 0
    shards.certify_part(one)
    assert torch.equal(shards.merge(both)["radius"], shards.merge(one)["radius"])
    assert digest("both") == digest("one")


@pytest.mark.parametrize("damage", ["missing", "cut", "flipped", "of another range"])
def test_damaged_shards_are_certified_again(run, small, damage):
    task = task_of(run, "shards", count=300)
    shards.certify_part(task)
    shards.merge(task)
    before = digest("shards")
    file = task.shard(100, 200)
    content = file.read_bytes()
    damaged = {
        "missing": None,
        "cut": content[:-9],
        "flipped": content[:-1] + bytes([content[-1] ^ 1]),
        "of another range": None,
    }[damage]
    file.unlink()
    if damaged is not None:
        file.write_bytes(damaged)
    if damage == "of another range":
        torch_bytes = safetensors.torch.save({"radius": torch.ones(7), "prediction": torch.ones(7)})
        file.write_bytes(torch_bytes)
    with pytest.raises(UsageError, match="1 of 3 shards are missing"):
        shards.merge(task)
    assert shards.certify_part(task) == 1
    shards.merge(task)
    assert digest("shards") == before


def test_shards_of_something_else_are_not_taken(run, small):
    task = task_of(run, "shards", count=200)
    shards.certify_part(task)
    other = ClassificationFolder.create(TINY, Path("other"))
    model = run.load_model()
    with torch.no_grad():
        next(model.parameters()).mul_(1.5)
    other.save_model(model)
    other.write({"train": run.read()["train"]})
    for changed in (
        task_of(run, "shards", count=200, level="float"),
        task_of(run, "shards", count=200, precision=64),
        task_of(run, "shards", count=200, method="liplt"),
        task_of(run, "shards", count=150),
        task_of(other, "shards", count=200),
    ):
        last = min(200, len(changed.images))
        assert shards._read_shard(changed.shard(100, last), last - 100) is None
    images = np.load("images.npy")
    images[150] ^= 1
    np.save("changed.npy", images)
    changed = shards.task_of(run, Path("shards"), images=Path("changed.npy"))
    assert changed.shard(0, 100) == task.shard(0, 100)
    assert changed.shard(100, 200) != task.shard(100, 200)


KILLER = """
import os, sys
from onelip.cli import main
from onelip.experiments.classification import shards

write, written = shards._write, []

def killed(file, tensors):
    write(file, tensors)
    written.append(file)
    if "--part=1/2" in sys.argv:
        (file.parent / ".half.1.safetensors").write_bytes(b"half")
        os.kill(os.getpid(), 9)

shards._write = killed
sys.exit(main(sys.argv[1:]))
"""


def test_a_killed_worker(run, monkeypatch, capfd):
    """Four shards, two workers, of which the first is killed after one."""
    images = stored_images(3 * shards.SHARD + 5)
    Path("killer.py").write_text(KILLER)
    line = ["certify", str(run.path), f"--images={images}"]
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "COMMAND", (sys.executable, str(Path("killer.py").resolve())))
        assert main([*line, "--shards=killed", "--workers=2"]) == 2
    said = capfd.readouterr().err
    assert "worker 1: killed by signal 9 (SIGKILL); 1 of 4 shards are missing" in said
    assert "the same command goes on" in said
    assert main([*line, "--shards=killed"]) == 0
    assert f"{len(np.load(images))} images, method product" in capfd.readouterr().out
    assert main([*line, "--shards=whole"]) == 0
    assert digest("killed") == digest("whole")


def test_the_test_set(run, capsys):
    assert main(["certify", str(run.path), "--shards=s"]) == 0
    said = capsys.readouterr().out
    assert main(["certify", str(run.path)]) == 0
    test = run.read()["certify"]["test"]
    assert f"       0  {100 * test['clean']:.2f}\n" in said
    for eps, share in test["certified"].items():
        assert f"{eps:>8}  {100 * share:.2f}\n" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--workers 2", "--workers is for shards: give --shards DIR"),
        ("--images x.npy", "--images is for shards"),
        ("--part 1/2", "--part is for shards"),
        ("--shards s --part 3/2", "--part takes a part of all"),
        ("--shards s --part 0/2", "--part takes a part of all"),
        ("--shards s --part x", "--part takes a part of all"),
        ("--shards s --workers 0", "--workers must be 1 or more"),
        ("--shards s --precision 16", "--precision must be 32 or 64"),
        ("--shards s --method foo", "known: product"),
        ("--shards s --images nowhere.npy", "nowhere.npy cannot be read"),
        ("--shards s --images float.npy", "it must be uint8, (count, 1, 8, 8)"),
        ("--shards s --images wide.npy", "it must be uint8, (count, 1, 8, 8)"),
        ("--shards s --images none.npy", "it must be uint8, (count, 1, 8, 8)"),
        ("--shards float.npy/x", "choose another --shards"),
    ],
)
def test_bad_arguments(run, capsys, words, message):
    np.save("float.npy", np.zeros((3, 1, 8, 8)))
    np.save("wide.npy", np.zeros((3, 1, 9, 8), np.uint8))
    np.save("none.npy", np.zeros((0, 1, 8, 8), np.uint8))
    assert main(["certify", str(run.path), *words.split()]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("onelip: ")
    assert message in err
    assert err.count("\n") == 1
