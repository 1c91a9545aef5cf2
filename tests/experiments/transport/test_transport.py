"""Runs of ``onelip transport``: what is recorded is true, and stopping changes nothing."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import safetensors.torch
import torch

from onelip.directed_rounding import downwards
from onelip.errors import NonFiniteError, SoundnessError, UsageError
from onelip.experiments.transport import run as transport
from onelip.experiments.transport.critic import build_critic
from onelip.experiments.transport.folder import TransportFolder, load_critic
from onelip.experiments.transport.inputs import read_pair
from onelip.experiments.transport.run import TransportRun, check_sandwich
from onelip.experiments.transport.settings import TransportSettings
from onelip.experiments.transport.text import transport_text
from onelip.experiments.wgan.folder import WGANFolder, load_generator
from onelip.experiments.wgan.settings import WGANSettings
from onelip.lipschitz import lipschitz_bound
from onelip.models import generate
from onelip.transport import TASKS, exact_distance, split, wasserstein_lower_bound

SETTINGS = TransportSettings(p="p.npy", q="q.npy", widths=(8,), steps=30, batch=16)
FILES = ["checkpoint.pt", "critic.safetensors", "metrics.json", "transport.png"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    np.save("p.npy", random.normal(size=(60, 3)).astype(np.float32))
    np.save("q.npy", random.normal(size=(80, 3)).astype(np.float32) + 1)


@pytest.fixture
def figure():
    """What asks for this gets a figure."""


@pytest.fixture(autouse=True)
def without_figure(request, monkeypatch):
    """Drawing takes longer than all the rest."""
    if "figure" not in request.fixturenames:
        monkeypatch.setattr(transport, "plot_transport", lambda *_: None)


def finished(path, settings=SETTINGS):
    run = TransportRun.create(settings, path)
    return run.finish(progress=False)


def contents(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*"))


def test_the_record_is_what_the_library_computes(tmp_path, figure):
    content = finished(tmp_path / "run")
    p, q = (torch.from_numpy(np.load(f"{name}.npy")) for name in "pq")
    critic = build_critic(SETTINGS, (3,))
    found = wasserstein_lower_bound(p, q, critic, steps=30, batch=16)
    result = content["result"]
    for name in ("value", "lower", "upper", "confidence", "interval", "constant", "rounding"):
        assert result[name] == getattr(found, name)
    assert result["samples"] == [30, 40]
    assert content["history"] == [list(point) for point in found.history]
    exact = exact_distance(split(p, 0.5, 0)[1], split(q, 0.5, 1)[1])
    assert content["exact"]["distance"] == exact >= result["value"] > 0
    assert content["truth"] is None
    for place, values in (("p", p), ("q", q)):
        described = content["samples"][place]
        assert described["sha256"] == hashlib.sha256(values.numpy().tobytes()).hexdigest()
        assert (described["count"], described["shape"]) == (len(values), [3])
    assert content["train"]["complete"]
    assert content["train"]["steps"] == 30
    assert content["train"]["value"] == found.history[-1][1]
    assert content["critic"]["widths"] == [8]
    assert {"commit", "versions", "device", "threads", "started"} <= {*content}
    assert len(content["sessions"]) == 1
    assert contents(tmp_path / "run") == FILES
    assert json.loads((tmp_path / "run" / "metrics.json").read_text()) == content


@pytest.mark.parametrize("name", TASKS)
def test_known_answers(tmp_path, name):
    """On average a proved critic is below the truth; its interval is all that may reach over it."""
    settings = TransportSettings(task=name, widths=(16,), steps=80, samples=400, lr=3e-2)
    content = finished(tmp_path / "run", settings)
    truth, result = TASKS[name].distance, content["result"]
    assert content["truth"] == truth
    assert 0.1 * truth < result["value"]
    assert result["lower"] < truth
    assert result["value"] <= content["exact"]["distance"] * (1 + 1e-9)
    assert content["samples"]["p"]["count"] == 400


@pytest.mark.parametrize(
    "settings",
    [
        TransportSettings(p="digits:test:3", q="digits:test:8", layer=layer, widths=(4, 8))
        for layer in ("bcop", "rko", "ossn")
    ]
    + [SETTINGS, replace(SETTINGS, layer="bjorck", activation="relu")],
    ids=lambda s: f"{s.layer}-{s.activation}",
)
def test_the_stored_critic_proves_the_stored_value(tmp_path, settings):
    content = finished(tmp_path / "run", replace(settings, steps=5, batch=8))
    critic = load_critic(tmp_path / "run")
    (p, q), _ = read_pair(settings)
    tests = split(p.values, 0.5, 0)[1], split(q.values, 0.5, 1)[1]
    with torch.no_grad():
        gap = critic(tests[0].double()).mean() - critic(tests[1].double()).mean()
    result = content["result"]
    assert float(lipschitz_bound(critic)) == result["constant"]
    value = float(gap) / result["constant"] - (result["rounding"] or 0)
    assert value == pytest.approx(result["value"], rel=1e-9, abs=1e-12)


class StoppedError(Exception):
    """Stands for a killed process."""


def stopped(path, monkeypatch, *, after, every, settings=SETTINGS):
    """A run that ends in the middle of a step."""
    run = TransportRun.create(settings, path)
    ascend = run.training._ascend

    def killed():
        if run.training.step >= after:
            run.training._optimizer.step()  # half a step more than the checkpoint knows
            raise StoppedError
        return ascend()

    monkeypatch.setattr(run.training, "_ascend", killed)
    with pytest.raises(StoppedError):
        run.finish(progress=False, every=every)


@pytest.mark.parametrize(
    "settings",
    [
        SETTINGS,
        TransportSettings(p="digits:test:3", q="digits:test:8", layer="ossn", steps=20, batch=8),
    ],
    ids=["dense", "power iteration"],
)
@pytest.mark.parametrize(("after", "every"), [(0, 0.0), (11, 0.0), (11, 1e9)])
def test_a_stopped_run_ends_with_the_same_weights(tmp_path, monkeypatch, settings, after, every):
    whole = finished(tmp_path / "whole", settings)
    stopped(tmp_path / "run", monkeypatch, after=after, every=every, settings=settings)
    assert (tmp_path / "run" / "checkpoint.pt").exists() == (after > 0 and every == 0)
    run = TransportRun.open(tmp_path / "run")
    assert run.training.step == (11 if (after, every) == (11, 0) else 0)
    content = run.finish(progress=False)
    for name in ("result", "history", "samples", "exact"):
        assert (name == "exact") or content[name] == whole[name]
    assert content["exact"]["distance"] == whole["exact"]["distance"]
    assert len(content["sessions"]) == 2
    weights = [
        safetensors.torch.load_file(tmp_path / name / "critic.safetensors")
        for name in ("whole", "run")
    ]
    assert all((weights[0][name] == weights[1][name]).all() for name in weights[0])
    again = TransportRun.open(tmp_path / "run").finish(progress=False)
    assert again["result"] == whole["result"]


def test_samples_that_have_changed(tmp_path, monkeypatch):
    stopped(tmp_path / "run", monkeypatch, after=3, every=0)
    array = np.load("q.npy")
    array[7, 1] += 1e-6
    np.save("q.npy", array)
    with pytest.raises(UsageError, match=r"q\.npy is no longer what .*run began with"):
        TransportRun.open(tmp_path / "run")


@pytest.mark.parametrize("file", ["checkpoint.pt", "metrics.json"])
def test_damaged_runs(tmp_path, monkeypatch, file):
    stopped(tmp_path / "run", monkeypatch, after=3, every=0)
    (tmp_path / "run" / file).write_bytes(b"{}")
    with pytest.raises(UsageError, match=r"corrupt|has no entry 'transport': name a folder"):
        TransportRun.open(tmp_path / "run")


def test_records_with_a_wrong_entry(tmp_path):
    content = finished(tmp_path / "run")
    file = tmp_path / "run" / "metrics.json"
    for part, entry in (("transport", {"nothing": 3}), ("transport", 3), ("samples", {})):
        file.write_text(json.dumps({**content, part: entry}))
        with pytest.raises(UsageError, match=r"cannot be read|no valid settings"):
            TransportRun.open(tmp_path / "run")
    (tmp_path / "run" / "critic.safetensors").write_bytes(b"")
    file.write_text(json.dumps(content))
    with pytest.raises(UsageError, match=r"critic\.safetensors is corrupt"):
        load_critic(tmp_path / "run")
    (tmp_path / "run" / "critic.safetensors").unlink()
    with pytest.raises(UsageError, match="has no critic yet"):
        load_critic(tmp_path / "run")
    with pytest.raises(UsageError, match=r"no run folder: .* onelip transport makes one"):
        TransportFolder.open(tmp_path)


def test_the_sandwich_is_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "exact_distance", lambda *_: 0.1)
    with pytest.raises(SoundnessError, match=r"exceeds the exact distance 0\.1 of the same"):
        finished(tmp_path / "run")


def test_a_critic_that_is_not_1_lipschitz_breaks_the_sandwich():
    """A negative control: the constant is the only thing that keeps the value down."""
    p, q = torch.randn(100, 2), torch.randn(100, 2) + 4
    found = wasserstein_lower_bound(p, q, steps=60)
    exact = exact_distance(split(p, 0.5, 0)[1], split(q, 0.5, 1)[1])
    check_sandwich(found, exact)
    check_sandwich(found, found.value)
    steep = replace(found, value=1.5 * found.value)
    assert steep.value > exact
    with pytest.raises(SoundnessError, match="please report this run"):
        check_sandwich(steep, exact)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"q": None}, "name two samples, onelip transport P Q, or one --task"),
        ({"task": "gaussians"}, "name two samples"),
        ({"p": None, "q": None}, "name two samples"),
        ({"p": None, "q": None, "task": "x"}, "no task 'x'; known: absolute-value"),
        ({"p": "nowhere.npy"}, "no file or folder nowhere.npy"),
        ({"p": "digits"}, r"shape \(1, 8, 8\), those of q.npy \(3,\): bring both"),
        ({"critic": "x"}, "no critic 'x'; known: dense, dcgan, extension"),
        ({"critic": "extension", "layer": "bjorck"}, "no --layer and no --activation"),
        ({"critic": "extension", "widths": (8, 8)}, "one number of points"),
        ({"fresh": True}, "--fresh draws from a --task"),
        ({"p": None, "q": None, "task": "funnels-2-4"}, "folder --data DIR"),
        ({"critic": "dcgan"}, r"samples of shape \(3,\) are no images: --critic dense"),
        ({"layer": "bcop"}, r"samples of shape \(3,\) are no images"),
        ({"activation": "tanh"}, "no activation 'tanh'"),
        (
            {"widths": (7,), "activation": "max-min"},
            "the critic cannot be built: 7 channels do not divide",
        ),
        ({"widths": (8, 0)}, "--widths must be positive"),
        ({"widths": ()}, "--widths must be positive"),
        ({"steps": 0}, "must be positive"),
        ({"batch": 0}, "must be positive"),
        ({"lr": float("inf")}, "must be positive"),
        ({"samples": 61}, "--samples 61: choose 4 to 60, which p.npy holds"),
        ({"held_out": 0.0}, "does not leave two"),
        ({"held_out": 0.99}, "does not leave two"),
        ({"confidence": 1.0}, "confidence is a probability"),
        ({"diameter": -1.0}, "--diameter must be positive"),
        ({"diameter": float("nan")}, "--diameter must be positive"),
        ({"seed": -1}, "--seed must not be negative"),
        ({"threads": -1}, "--threads must not be negative"),
        ({"p": None, "q": None, "task": "gaussians", "samples": 3}, "--samples 3"),
    ],
    ids=str,
)
def test_what_cannot_start_leaves_no_folder(tmp_path, changes, message):
    with pytest.raises(UsageError, match=message):
        TransportRun.create(replace(SETTINGS, **changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_training_that_diverges_at_once_leaves_no_folder(tmp_path, monkeypatch):
    run = TransportRun.create(SETTINGS, tmp_path / "run")
    monkeypatch.setattr(run.training, "_ascend", lambda: float("nan"))
    with pytest.raises(NonFiniteError, match="not finite at step 1"):
        run.finish(progress=False)
    assert not (tmp_path / "run").exists()


def test_nothing_is_overwritten(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "precious").write_text("text")
    with pytest.raises(UsageError, match="is not overwritten: choose another --out"):
        TransportRun.create(SETTINGS, tmp_path / "run")
    assert contents(tmp_path / "run") == ["precious"]
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"cannot be made: .*; choose another --out"):
        TransportRun.create(SETTINGS, tmp_path / "file" / "run")


def test_a_folder_of_its_own(tmp_path):
    run = TransportRun.create(SETTINGS)
    assert str(run.folder.path).startswith("runs/transport-2")
    assert run.folder.path.is_dir()


def test_exact_distances_are_for_small_samples_or_on_request(tmp_path, monkeypatch):
    monkeypatch.setattr(transport, "_CHEAP", 1199)
    assert "exact" not in finished(tmp_path / "large")
    asked = finished(tmp_path / "asked", replace(SETTINGS, exact=True))
    assert asked["exact"]["solver"].startswith("pot ")  # 30 against 40 samples
    monkeypatch.setattr(transport, "_CHEAP", 1200)
    assert "exact" in finished(tmp_path / "cheap")
    monkeypatch.setattr(transport, "_solver", lambda *_: None)
    assert "exact" not in finished(tmp_path / "without solver")


def test_the_critic_follows_the_samples(tmp_path):
    images = TransportSettings(
        p="digits:test:1", q="digits:test:2", critic="dcgan", steps=2, batch=4
    )
    assert finished(tmp_path / "a", images)["critic"] == {
        "kind": "dcgan",
        "layer": "bcop",
        "activation": "max-min",
        "widths": [16, 32, 64],
        "parameters": sum(p.numel() for p in build_critic(images, (1, 8, 8)).parameters()),
    }
    dense = replace(images, critic="dense", layer="bjorck", widths=(4, 6))
    critic = finished(tmp_path / "b", dense)["critic"]
    assert (critic["kind"], critic["layer"], critic["widths"]) == ("dense", "bjorck", [4, 6])
    np.save("small.npy", np.random.default_rng(0).random((20, 1, 7, 9)))
    small = replace(images, p="small.npy", q="small.npy", critic="dense")
    content = finished(tmp_path / "c", small)
    assert (content["critic"]["kind"], content["critic"]["widths"]) == ("dense", [128, 128, 128])
    assert content["samples"]["p"]["dtype"] == "float64"


@pytest.fixture
def funnels_folder(tmp_path):
    centers = np.random.default_rng(0).uniform(-2.5, 2.5, (4, 3)).astype(np.float32)
    np.savez(tmp_path / "funnels.npz", centers_3_4=centers, bias_3_4=np.zeros(4, np.float32))
    return str(tmp_path)


FUNNELS = TransportSettings(
    task="funnels-3-4", fresh=True, critic="extension", widths=(16,), steps=40, batch=32
)


def test_an_extension_on_fresh_samples(tmp_path, funnels_folder):
    """What is recorded is what the stored critic proves, below the distance and its error."""
    settings = replace(
        FUNNELS, data=funnels_folder, samples=2000, held_out=0.9, diameter=8.7, steps=200
    )
    content = finished(tmp_path / "run", settings)
    assert content["critic"] == {
        "kind": "extension",
        "layer": None,
        "activation": None,
        "widths": [16],
        "parameters": 16 * 4 + 1,
    }
    result, truth = content["result"], content["truth"]
    assert (result["interval"], result["samples"]) == ("bernstein", [1800, 1800])
    assert result["lower"] <= truth
    assert 0.2 * truth < result["value"]
    assert 0 < content["truth_error"] < 0.01 * truth
    assert 0 < result["rounding"] < 1e-9
    (p, q), _ = read_pair(settings)
    tests = split(p.values, 0.9, 0)[1], split(q.values, 0.9, 1)[1]
    critic = load_critic(tmp_path / "run")
    with torch.no_grad():
        gap = critic(tests[0].double()).mean() - critic(tests[1].double()).mean()
    value = float(gap) / result["constant"] - result["rounding"]
    assert value == pytest.approx(result["value"], rel=1e-9)
    text = transport_text(content)
    assert "extension of 16 points; 200 steps" in text
    assert "(drawn pairs of an optimal plan)" in text


def test_fresh_training_ends_with_the_same_weights_after_a_stop(tmp_path, funnels_folder):
    settings = replace(FUNNELS, data=funnels_folder, samples=200)
    whole = finished(tmp_path / "whole", settings)
    first = TransportRun.create(settings, tmp_path / "stopped")
    first.training.run(until=17)
    first.folder.save_checkpoint({"training": first.training.state_dict(), "seconds": 1.0})
    content = TransportRun.open(tmp_path / "stopped").finish(progress=False)
    assert content["result"] == whole["result"]


def test_fresh_samples_are_not_those_held_out(tmp_path, funnels_folder):
    """One seed for both would judge a critic on the samples that it was trained on."""
    settings = replace(FUNNELS, data=funnels_folder, samples=200)
    run, seen = TransportRun.create(settings, tmp_path / "run"), []
    sources = run.training._sources
    run.training._sources = tuple(
        lambda n, random, draw=draw: seen.append(draw(n, random)) or seen[-1] for draw in sources
    )
    run.training.run()
    held_out = {tuple(row) for part in (run.test_p, run.test_q) for row in part.tolist()}
    drawn = [tuple(row) for part in seen for row in part.tolist()]
    assert len(drawn) == len(set(drawn)) == 2 * 40 * 32
    assert not held_out & set(drawn)


def test_seeds_change_samples_weights_and_batches(tmp_path):
    settings = replace(SETTINGS, samples=40)
    first, same, other = (
        finished(tmp_path / name, replace(settings, seed=seed))
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert first["result"] == same["result"]
    assert first["samples"] == same["samples"]
    assert first["samples"]["p"]["sha256"] != other["samples"]["p"]["sha256"]
    assert first["history"][0] != other["history"][0]


def test_a_generator_is_drawn_from(tmp_path):
    wgan = WGANSettings("digits", width=4, critic_width=4, latent=3)
    folder = WGANFolder.create(wgan, tmp_path / "gan")
    folder.save_weights("generator", wgan.build()[0])
    settings = TransportSettings(p="digits", q="gan", samples=30, steps=2, batch=8, seed=2)
    (p, q), truth = read_pair(settings)
    assert (len(p), len(q), truth) == (30, 30, None)
    images = generate(load_generator(tmp_path / "gan"), 30, seed=5)
    assert (q.values == images).all()
    content = finished(tmp_path / "run", settings)
    assert content["samples"]["q"]["note"] == "images of a generator"
    assert TransportRun.open(tmp_path / "run").training.step == 2


def test_text(tmp_path):
    content = finished(tmp_path / "run", replace(SETTINGS, diameter=20.0, confidence=0.9))
    text = transport_text(content)
    result = content["result"]
    for words in (
        "p.npy, 60 samples of 3",
        "dense of cholesky layers, 8 wide, full-sort; 30 steps",
        f"lower bound, as estimated      {downwards(result['value'])}",
        f"its 90 % interval              {downwards(result['lower'])} to ",
        f"{result['upper']:.6g} (Bernstein, any number of samples)",
        "30 of P, 40 of Q",
        f"exact, of the same samples     {content['exact']['distance']:.6g}",
    ):
        assert words in text
    assert "true distance" not in text
    del content["exact"]
    content["result"]["rounding"], content["truth"] = None, 1.5
    text = transport_text(content)
    assert "true distance of P and Q       1.5" in text
    assert "holds in exact arithmetic" in text
    assert "exact, of the same" not in text


def test_a_run_killed_while_samples_were_read_starts_again(tmp_path):
    """Its folder has settings, but does not say yet what identifies the samples."""
    whole = finished(tmp_path / "whole")
    TransportFolder.create(SETTINGS, tmp_path / "run")
    content = TransportRun.open(tmp_path / "run").finish(progress=False)
    assert content["samples"] == whole["samples"]
    assert content["result"] == whole["result"]


def test_ctrl_c_while_samples_are_read_leaves_no_folder(tmp_path, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(transport, "read_pair", interrupted)
    with pytest.raises(KeyboardInterrupt):
        TransportRun.create(SETTINGS, tmp_path / "a" / "run")
    assert contents(tmp_path) == ["p.npy", "q.npy"]
