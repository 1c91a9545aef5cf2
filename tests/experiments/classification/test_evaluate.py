"""Evaluation: certified <= attacked <= clean, and a broken certificate does not pass."""

import dataclasses
import json
import shutil

import pytest
import safetensors.torch
import torch
from torch import nn

from onelip import export, lipschitz_bound
from onelip.certificates import certify
from onelip.data import holdout, load
from onelip.errors import SoundnessError, UsageError
from onelip.experiments.classification import (
    ClassificationFolder,
    Recipe,
    accuracy_figure,
    attack_run,
    bound_run,
    certify_run,
    format_eps,
    plot,
    table,
    train,
)
from onelip.experiments.classification import certify as certify_module
from onelip.layers import UnitNormLinear

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
    objective={"offset": 1.5, "temperature": 0.25},
    batch_size=64,
    lr=5e-3,
    validation=150,
    epochs=10,
    eps=(0.3, 36 / 255, 1.5),
    attack_samples=60,
    attack_steps=10,
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    run = ClassificationFolder.create(TINY, tmp_path_factory.mktemp("trained") / "run")
    assert train(run, progress=False)
    certify_run(run)
    attack_run(run)
    return run


@pytest.fixture
def run(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run")
    return ClassificationFolder.open(tmp_path / "run")


def test_sandwich(trained):
    (attack,) = trained.read()["attack"].values()
    assert [row["eps"] for row in attack["eps"]] == sorted(TINY.eps)
    attacked = [row["attacked"] for row in attack["eps"]]
    certified = [row["certified"] for row in attack["eps"]]
    assert attacked == sorted(attacked, reverse=True)
    assert certified == sorted(certified, reverse=True)
    assert all(c <= a <= attack["clean"] for c, a in zip(certified, attacked, strict=True))
    assert 0 < certified[0] < attack["clean"]  # the test is about something
    assert attacked[-1] < attack["clean"]


def test_inflated_radii_are_caught(run, monkeypatch):
    real = certify_module._certify

    def inflated(*arguments):
        return [dataclasses.replace(c, radius=10 * c.radius) for c in real(*arguments)]

    before = run.read()
    monkeypatch.setattr(certify_module, "_certify", inflated)
    with pytest.raises(SoundnessError, match=r"sample \d+ is certified to .* broken at eps="):
        attack_run(run)
    assert run.read()["attack"] == before["attack"]


def test_a_radius_for_a_wrong_prediction_is_not_robust(run, monkeypatch):
    """Radii of mistakes do not count, so inflating only those changes nothing."""
    real, before = certify_module._certify, run.read()["attack"]

    def inflated(model, proved, level, *sets):
        for certificate, data in zip(real(model, proved, level, *sets), sets, strict=True):
            wrong = certificate.prediction != data.labels
            assert wrong.any()
            yield dataclasses.replace(certificate, radius=certificate.radius.where(~wrong, 9.0))

    monkeypatch.setattr(certify_module, "_certify", inflated)
    attack_run(run)
    after = run.read()["attack"]
    assert [a["eps"] for a in after.values()] == [b["eps"] for b in before.values()]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"samples": 0}, "--samples must be 1 or more"),
        ({"samples": -1}, "--samples must be 1 or more"),
        ({"attacks": ("foo",)}, "no attack 'foo'; known: fmn"),
    ],
)
def test_what_cannot_be_attacked(run, arguments, message):
    with pytest.raises(UsageError, match=message):
        attack_run(run, **arguments)


def test_more_samples_than_images(run):
    assert attack_run(run, samples=10**6, attacks=("fgm",))["samples"] == 450


def test_the_exported_network_is_what_is_certified(trained):
    content = trained.read()["certify"]
    exported = export(trained.load_model())
    body, head = exported[:-1], exported[-1]
    assert content["body_bound"] == float(lipschitz_bound(body)) == 1.0
    assert content["bound"] == float(lipschitz_bound(exported))
    assert type(head) is nn.Linear
    test = load("digits", "test")
    certificate = certify(exported, test.inputs / 255, test.labels)
    assert content["test"]["clean"] == certificate.accuracy(0.0, test.labels)
    assert content["method"] == f"margin, {certificate.head}" == "margin, pairwise"
    assert (content["level"], content["logits"]) == (certificate.level, "float32, cpu")
    _, held_out = holdout(load("digits", "train"), TINY.validation, TINY.split_seed)
    assert content["held_out"]["samples"] == len(held_out) == 150


def test_certificates_agree_with_the_record(trained):
    stored = safetensors.torch.load_file(trained.path / "certificates.safetensors")
    content = trained.read()["certify"]["test"]
    right = stored["prediction"] == stored["labels"]
    assert torch.equal(stored["labels"], load("digits", "test").labels)
    assert content["samples"] == len(right) == 450
    assert content["clean"] == float(right.double().mean())
    assert [float(eps) for eps in content["certified"]] == list(TINY.eps)
    for eps, accuracy in content["certified"].items():
        assert accuracy == float((right & (stored["radius"] > float(eps))).double().mean())
    assert (stored["radius"][~right] == 0).all()


@pytest.mark.usefixtures("clock")
def test_bounds(run):
    result = bound_run(run, seconds=4)
    exported = export(run.load_model())
    assert run.read()["bound"] == result
    assert len(result["layers"]) == len(exported)
    assert result["exported"] == float(lipschitz_bound(exported))
    assert result["as_trained"] == float(lipschitz_bound(run.load_model()))
    *body, head = result["layers"].values()
    assert body == [1.0] * len(body)
    assert isinstance(run.load_model()[-1], UnitNormLinear)
    assert head == pytest.approx(result["exported"])


@pytest.mark.parametrize(
    ("eps", "text"),
    [
        (36 / 255, "36/255"),
        (72 / 255, "72/255"),
        (255.5 / 255, "1.00196"),
        (0.1, "0.1"),
        (0.2, "51/255"),
        (1.0, "1"),
        (2.0, "2"),
        (1.58, "1.58"),
        (0.0, "0"),
    ],
)
def test_format_eps(eps, text):
    assert format_eps(eps) == text


SHOWN = Recipe("tiny", "an example", "digits", "cpl_digits", eps=(1.0, 36 / 255), epochs=5)
METRICS = {
    "train": {"seconds": 12.34, "complete": True, "epochs": [{}, {}]},
    "certify": {
        "method": "margin, pairwise",
        "level": "real",
        "bound": 1.25,
        "body_bound": 1.0,
        "data": "CIFAR-10 (JPEG copy)",
        "test": {"samples": 4, "clean": 0.75, "certified": {repr(36 / 255): 0.5, "1.0": 0.25}},
        "seconds": 1.0,
    },
}
ATTACK = {
    "samples": 3,
    "clean": 2 / 3,
    "seconds": 2.0,
    "eps": [{"eps": 36 / 255, "certified": 1 / 3, "attacked": 0.6}],
}


def test_table():
    """Attacks on some images stand beside the certified accuracy of the same images."""
    metrics = {**METRICS, "attack": {"fgm on 3 images": ATTACK}}
    assert table(metrics, SHOWN).splitlines() == [
        "tiny: an example (CIFAR-10 (JPEG copy))",
        "",
        "     eps  certified %, all 4  certified %, 3  attacked %, fgm on 3 images",
        "       0               75.00           66.67                        66.67",
        "  36/255               50.00           33.33                        60.00",
        "       1               25.00               -                            -",
        "",
        "clean accuracy 75.00 %",
        "proved Lipschitz bound 1.250000000, in front of the head 1.000000000 "
        "(margin, pairwise, level real)",
        "seconds: train 12.3, certify 1.0, fgm on 3 images 2.0",
    ]


def test_table_of_all_images_needs_one_certified_column():
    metrics = {**METRICS, "attack": {"fgm on 4 images": {**ATTACK, "samples": 4}}}
    assert table(metrics, SHOWN).splitlines()[2] == (
        "     eps  certified %, all 4  attacked %, fgm on 4 images"
    )


def test_table_before_the_attack_and_before_the_end():
    train = {**METRICS["train"], "complete": False}
    lines = table({**METRICS, "train": train}, SHOWN).splitlines()
    assert lines[1] == "stopped after 2 of 5 epochs"
    assert lines[4:6] == ["       0               75.00", "  36/255               50.00"]
    assert lines[-1] == "seconds: train 12.3, certify 1.0"


def test_table_of_a_run(trained):
    content = trained.read()
    text = table(content, trained.recipe)
    assert f"clean accuracy {100 * content['certify']['test']['clean']:.2f} %" in text
    assert "certified %, all 450" in text
    assert "  36/255  " in text


def test_figures(run, tmp_path):
    assert plot([run]) == run.path / "figure.png"
    assert (run.path / "figure.png").read_bytes().startswith(b"\x89PNG\r\n")
    for name, magic in (("both.pdf", b"%PDF"), ("both.svg", b"<?xml"), ("both.PNG", b"\x89PNG")):
        assert plot([run, run], tmp_path / name) == tmp_path / name
        assert (tmp_path / name).read_bytes().startswith(magic)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "both.pdf", "both.svg", "both.PNG"}


def test_figure_without_attack_and_with_endless_radii(run):
    content = run.read()
    del content["attack"]
    (run.path / "metrics.json").write_text(json.dumps(content))
    path = run.path / "certificates.safetensors"
    stored = safetensors.torch.load_file(path)
    stored["radius"][0] = torch.inf  # a constant prediction
    safetensors.torch.save_file(stored, path)
    assert plot([run]).stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "message"),
    [("figure.xyz", "--out FIGURE.png"), ("no/figure.png", "choose another --out")],
)
def test_what_cannot_be_drawn(run, tmp_path, name, message):
    with pytest.raises(UsageError, match=message):
        plot([run], tmp_path / name)
    with pytest.raises(UsageError, match="needs a file"):
        plot([run, run])


def drawn(monkeypatch):
    """Figures that are drawn from now on."""
    figures = []
    real = accuracy_figure.new_figure
    monkeypatch.setattr(
        accuracy_figure, "new_figure", lambda *size: figures.append(real(*size)) or figures[-1]
    )
    return figures


def with_seed(run, path, seed, shift=0.0, **settings):
    """A copy of a run, as if another seed or setting had given other radii."""
    shutil.copytree(run.path, path)
    record = json.loads((path / "metrics.json").read_text())
    record["recipe"] |= {"seed": seed, **settings}
    (path / "metrics.json").write_text(json.dumps(record))
    stored = safetensors.torch.load_file(path / "certificates.safetensors")
    stored["radius"] = stored["radius"] + shift
    safetensors.torch.save_file(stored, path / "certificates.safetensors")
    return ClassificationFolder.open(path)


def test_mean_and_band_over_seeds(run, tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    runs = [with_seed(run, tmp_path / f"s{seed}", seed, 0.1 * seed) for seed in range(3)]
    assert plot(runs, tmp_path / "seeds.pdf") == tmp_path / "seeds.pdf"
    curves, _ = figures[0].axes
    line = next(line for line in curves.lines if line.get_label() == "certified")
    grid = torch.tensor(line.get_xdata())
    shares = []
    for seeded in runs:
        stored = safetensors.torch.load_file(seeded.path / "certificates.safetensors")
        right = stored["prediction"] == stored["labels"]
        shares.append([100 * float((right & (stored["radius"] > e)).double().mean()) for e in grid])
    shares = torch.tensor(shares)
    torch.testing.assert_close(torch.tensor(line.get_ydata()).float(), shares.mean(0))
    shaded, band = curves.collections[:2]
    ends = torch.tensor(band.get_paths()[0].vertices[:, 1]).float()
    assert ends.max() == pytest.approx(float((shares.mean(0) + shares.std(0)).max()), rel=1e-5)
    assert shaded.get_paths()[0].vertices[:, 1].min() == 0  # what is certified
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert "± standard deviation over 3 seeds" in texts
    assert curves.get_ylabel() == "accuracy, %"
    assert figures[0].get_suptitle() == "tiny: 450 test images of digits; level real"


def test_labels_say_what_differs(run, tmp_path, monkeypatch):
    figures = drawn(monkeypatch)
    runs = [
        with_seed(run, tmp_path / f"r{lr}{decay}", 0, lr=lr, weight_decay=decay)
        for lr in (0.01, 0.1, 1.0)
        for decay in (0.0, 0.5)
    ]
    plot(runs, tmp_path / "six.svg")
    texts = [text.get_text() for text in figures[0].legends[0].get_texts()]
    assert texts[:6] == [
        f"lr {lr}, weight_decay {decay}" for lr in ("0.01", "0.1", "1") for decay in ("0", "0.5")
    ]
    assert texts[6:] == ["certified (line)", "attacked: fmn, apgd-t on 60 images"]
