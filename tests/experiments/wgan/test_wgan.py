"""The command ``onelip wgan``: what it leaves behind, resumes, judges, draws and refuses."""

import dataclasses
import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

from onelip._export import export
from onelip.cli import main
from onelip.data import load
from onelip.errors import UsageError
from onelip.experiments.wgan import run as wgan
from onelip.experiments.wgan.figures import draw_samples, grid
from onelip.experiments.wgan.folder import WGANFolder, load_generator
from onelip.experiments.wgan.run import judge_wgan, train_wgan
from onelip.experiments.wgan.settings import WGANSettings
from onelip.experiments.wgan.text import wgan_text
from onelip.lipschitz import lipschitz_bound
from onelip.models import generate
from onelip.transport import exact_distance

TINY = shlex.split("--steps 6 --batch 16 --width 4 --critic-width 4 --judge-steps 5 --quiet")
FILES = {
    "metrics.json",
    "checkpoint.pt",
    "generator.safetensors",
    "critic.safetensors",
    "samples.png",
    "history.png",
}


@pytest.fixture(scope="module", params=["bcop", "penalty"])
def trained(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("trained") / request.param
    command = ["wgan", "digits", "--critic", request.param, *TINY, "--out", str(path)]
    assert main(command) == 0
    return path


@pytest.fixture
def run(trained, tmp_path):
    return WGANFolder.open(shutil.copytree(trained, tmp_path / trained.name))


@pytest.fixture
def refused(capsys, tmp_path, monkeypatch):
    """Status 2, one line, nothing made."""
    monkeypatch.chdir(tmp_path)

    def refused(line, message):
        before = sorted(tmp_path.rglob("*"))
        capsys.readouterr()
        assert main(["wgan", *shlex.split(line)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("onelip: ")
        assert err.count("\n") == 1
        assert message in err
        assert sorted(tmp_path.rglob("*")) == before

    return refused


def settings(**changes):
    tiny = {"steps": 6, "batch": 16, "width": 4, "critic_width": 4, "judge_steps": 5}
    return WGANSettings("digits", **{**tiny, **changes})


def stored(path, name="generator"):
    return safetensors.torch.load_file(path / f"{name}.safetensors")


def same(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[k], second[k]) for k in first)


def test_a_run_leaves_its_files_and_no_others(trained):
    assert {file.name for file in trained.iterdir()} == FILES


def test_the_record_says_what_the_weights_depend_on(trained):
    metrics = json.loads((trained / "metrics.json").read_text())
    assert metrics["wgan"]["steps"] == 6
    assert metrics["wgan"]["critic"] == trained.name
    assert metrics["train"]["complete"]
    assert metrics["train"]["step"] == 6
    assert metrics["train"]["history"][-1][0] == 6
    assert metrics["train"]["parameters"] == {
        "generator": sum(v.numel() for v in load_generator(trained).parameters()),
        "critic": sum(v.numel() for k, v in stored(trained, "critic").items()),
    }
    assert {"commit", "versions", "device", "threads", "started"} <= metrics.keys()
    assert len(metrics["sessions"]) == 1


def test_only_a_critic_with_a_penalty_has_one(run):
    expected = {"bcop": None, "penalty": 10.0}[run.settings.critic]
    assert wgan._prepared(run, None).penalty == expected


def test_held_out_bounds_lie_below_the_exact_distance(trained):
    held_out = json.loads((trained / "metrics.json").read_text())["held_out"]
    real = load("digits", "test").inputs.float() / 255
    fake = generate(load_generator(trained), len(real), seed=1)
    distance = exact_distance(real, fake)
    assert (held_out["critic"] is None) == (trained.name == "penalty")
    for key in ("critic", "fresh_critic"):
        if (row := held_out[key]) is not None:
            assert row["value"] <= distance
            assert row["lower"] <= row["value"] <= row["upper"]
            assert row["constant"] <= 1 + 1e-5
            assert row["interval"] == "bernstein"
            assert row["samples"] == [450, 450]


def test_the_constant_is_that_of_the_final_critic(run):
    if run.settings.critic == "penalty":
        pytest.skip("nothing is proved of it")
    _, critic = run.settings.build()
    critic.load_state_dict(stored(run.path, "critic"))
    with run.load_checkpoint() as state:
        assert same(critic.state_dict(), state["wgan"]["critic"])
    found = run.read()["held_out"]
    assert found["critic"]["constant"] == float(lipschitz_bound(export(critic).double()))
    assert judge_wgan(run) == found


def test_it_says_what_was_proved(trained, capsys, tmp_path):
    shutil.copytree(trained, tmp_path / "again")
    assert main(["wgan", "--resume", str(tmp_path / "again"), "--quiet"]) == 0
    out = capsys.readouterr().out
    assert "with 95% confidence" in out
    assert "450 test images" in out
    assert ("nothing is proved of it" in out) == (trained.name == "penalty")
    assert same(stored(tmp_path / "again"), stored(trained))


def test_it_says_what_is_special_about_the_images(run, monkeypatch):
    def copied(*arguments):
        return dataclasses.replace(load(*arguments), note="digits (JPEG copy)")

    assert "JPEG" not in wgan_text(run)
    monkeypatch.setattr(wgan, "load", copied)
    judge_wgan(run, progress=False)
    assert run.read()["data"]["note"] == "digits (JPEG copy)"
    assert re.match(r"6 steps in \d+ s, digits \(JPEG copy\)\n", wgan_text(run))


def test_stopped_and_resumed_is_uninterrupted(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(wgan, "_SAVED_EVERY", 2)
    path = tmp_path / "stopped"
    command = ["wgan", "digits", "--critic", trained.name, *TINY, "--out", str(path)]
    assert main([*command, "--max-minutes", "1e-9"]) == 0
    metrics = json.loads((path / "metrics.json").read_text())
    assert metrics["train"]["step"] == 2
    assert not metrics["train"]["complete"]
    assert not same(stored(path), stored(trained))
    assert main(["wgan", "--resume", str(path), "--quiet"]) == 0
    assert same(stored(path), stored(trained))
    assert same(stored(path, "critic"), stored(trained, "critic"))
    again = json.loads((path / "metrics.json").read_text())
    whole = json.loads((trained / "metrics.json").read_text())
    assert again["train"]["history"] == whole["train"]["history"]
    assert again["train"]["seconds"] >= metrics["train"]["seconds"]
    assert len(again["sessions"]) == 2


def test_a_killed_run_resumes_from_its_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(wgan, "_SAVED_EVERY", 2)
    whole, killed = (WGANFolder.create(settings(), tmp_path / name) for name in ("whole", "killed"))
    train_wgan(whole, progress=False)

    class Killed(BaseException):
        pass

    save = WGANFolder.save_checkpoint

    def dying(self, state):
        save(self, state)
        if state["wgan"]["step"] == 4:
            raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(WGANFolder, "save_checkpoint", dying)
        with pytest.raises(Killed):
            train_wgan(killed, progress=False)
    assert not (killed.path / "generator.safetensors").exists()
    assert train_wgan(killed, progress=False)
    assert same(stored(killed.path), stored(whole.path))


def test_ctrl_c_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("onelip.cli.wgan.train_wgan", interrupted)
    path = tmp_path / "run"
    assert main(["wgan", "digits", *TINY, "--out", str(path)]) == 130
    assert f"go on with: onelip wgan --resume {path}" in capsys.readouterr().err


def test_ctrl_c_while_judging_says_how_to_go_on(tmp_path, monkeypatch, capsys):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(wgan, "_fresh_critic", interrupted)
        assert main(["wgan", "digits", *TINY, "--out", str(path)]) == 130
    assert f"go on with: onelip wgan --resume {path}" in capsys.readouterr().err
    assert main(["wgan", "--resume", str(path), "--quiet"]) == 0
    assert WGANFolder.open(path).read()["held_out"]["fresh_critic"]["steps"] == 5


def test_the_bar_counts_to_the_last_step(tmp_path, capsys):
    train_wgan(WGANFolder.create(settings(), tmp_path / "run"))
    assert "6/6" in capsys.readouterr().err


def test_the_generator_loads_from_a_folder_that_holds_only_it(run, tmp_path):
    alone = tmp_path / "alone"
    alone.mkdir()
    shutil.copy(run.path / "generator.safetensors", alone)
    shutil.copy(run.path / "metrics.json", alone / "generator.json")
    found, expected = load_generator(alone), load_generator(run.path)
    assert not found.training
    assert torch.equal(generate(found, 5), generate(expected, 5))
    assert main(["wgan", "--resume", str(alone), "--quiet"]) == 2  # never trained over
    assert {file.name for file in alone.iterdir()} == {"generator.safetensors", "generator.json"}


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (
            lambda p: (p / "generator.safetensors").unlink(),
            "has no generator yet: onelip wgan --resume",
        ),
        (lambda p: (p / "generator.safetensors").write_bytes(b"no"), "is corrupt"),
        (lambda p: shutil.copy(p / "critic.safetensors", p / "generator.safetensors"), "another"),
        (lambda p: (p / "metrics.json").unlink(), "onelip wgan makes one"),
        (lambda p: (p / "metrics.json").write_text("{"), "cannot be read"),
        (lambda p: (p / "metrics.json").write_text('{"recipe": {}}'), "has no entry 'wgan': name"),
        (lambda p: (p / "metrics.json").write_text('{"wgan": {"x": 1}}'), "no valid settings"),
    ],
)
def test_a_generator_that_cannot_be_loaded(run, break_it, message):
    break_it(run.path)
    with pytest.raises(UsageError, match=message):
        load_generator(run.path)


def test_a_corrupt_checkpoint_is_refused(run):
    run.checkpoint.write_bytes(b"no")
    with pytest.raises(UsageError, match="is corrupt or of another run: start again"):
        train_wgan(run, progress=False)
    torch.save({"wgan": {}, "seconds": 0.0}, run.checkpoint)
    with pytest.raises(UsageError, match="is corrupt or of another run"):
        train_wgan(run, progress=False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "dataset"),
        ("nowhere", "no data set 'nowhere'; known: digits"),
        ("digits --critic linear", "no critic 'linear'; known: aoc"),
        ("digits --steps 0", "steps=0"),
        ("digits --steps x", "steps"),
        ("digits --batch 5000", "batch=5000 must lie between 2 and the 1347 images"),
        ("digits --critic-width 0", "--critic_width must be positive, got 0"),
        ("digits --width 0", "--width must be positive, got 0"),
        ("digits --threads -1", "--threads must not be negative, got -1"),
        ("digits --latent 0", "latent=0"),
        ("digits --lr -1", "lr=-1"),
        ("digits --max-minutes 0", "--max_minutes must be positive"),
        ("digits --out .", "is not overwritten"),
        ("mnist --data missing", "missing"),
        ("--resume missing", "missing is no run folder: it has no metrics.json; onelip wgan"),
        ("--resume missing --steps 5", "steps"),
        ("digits --critic penalty --penalty 0", "penalty=0"),
    ],
)
def test_bad_input_ends_in_one_line(refused, line, message):
    refused(f"{line} --quiet", message)


def test_the_weights_of_a_seed_leave_the_global_generator_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second, other = settings().build(), settings().build(), settings(seed=1).build()
    assert torch.equal(torch.get_rng_state(), before)
    assert same(first[0].state_dict(), second[0].state_dict())
    assert not torch.equal(first[0][0].weight, other[0][0].weight)


def test_the_rate_of_the_critic_is_that_of_its_kind():
    assert settings(lr=1e-4).critic_rate == 2e-3
    assert settings(lr=1e-4, critic="penalty").critic_rate == 1e-4
    assert settings(critic_lr=3e-3, critic="penalty").critic_rate == 3e-3


def test_a_grid_puts_images_row_by_row():
    images = torch.arange(4.0)[:, None, None, None] * torch.ones(4, 3, 2, 5)
    tiles = grid(images, 2)
    assert tiles.shape == (4, 10, 3)
    assert tiles[0, 0, 0] == 0
    assert tiles[0, 9, 1] == 1
    assert tiles[3, 0, 2] == 2
    assert tiles[3, 9, 0] == 3


def test_samples_of_several_generators_are_drawn_in_color(tmp_path):
    generator, _ = WGANSettings("cifar10", width=2, critic_width=4).build()
    target = draw_samples([("one", generator), ("two", generator)], tmp_path / "s.png", side=2)
    assert target.stat().st_size > 1000
    with pytest.raises(UsageError, match="is no figure"):
        draw_samples([("one", generator)], Path("samples.txt"))
