"""Training with the constants of logit differences: where they come from, and what a run stores."""

import dataclasses

import pytest
import safetensors.torch
import torch
from torch import nn

from onelip.data import load
from onelip.errors import UsageError
from onelip.experiments.classification import (
    ClassificationFolder,
    Recipe,
    attack_run,
    bound_run,
    certify_run,
    table,
    train,
)
from onelip.experiments.classification.training.pairwise_estimates import pairwise_estimate
from onelip.layers import UnitNormLinear
from onelip.losses import CRM
from onelip.losses.crm import rival_radii
from onelip.models import MODELS

TINY = Recipe(
    "tiny",
    "an example",
    "digits",
    "4c3f",
    network={"width": 0.0625},
    loss="crm",
    objective={"radius": 1.0, "weight": 2.0, "start_epoch": 2},
    certificate="liplt",
    batch_size=64,
    validation=150,
    epochs=4,
    lr=3e-3,
    schedule="one-cycle",
    attack_samples=20,
    attack_steps=5,
    eps=(0.1, 0.5),
)


def run_of(path, **changes):
    return ClassificationFolder.create(dataclasses.replace(TINY, **changes), path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = run_of(tmp_path_factory.mktemp("crm") / "run")
    assert train(run, progress=False)
    return run


def test_the_radii_count_from_the_start_epoch_on(finished, tmp_path):
    losses = [epoch["loss"] for epoch in finished.read()["train"]["epochs"]]
    plain = run_of(tmp_path / "plain", objective={**TINY.objective, "start_epoch": 9})
    assert train(plain, progress=False)
    without = [epoch["loss"] for epoch in plain.read()["train"]["epochs"]]
    assert losses[:2] == without[:2]
    assert losses[2:] != without[2:]


def test_a_resumed_run_has_the_directions_of_the_first(finished, tmp_path, whole_epochs):
    run = run_of(tmp_path / "run")
    while not train(run, progress=False, max_minutes=1e-9):
        pass
    one, other = (safetensors.torch.load_file(r.weights) for r in (finished, run))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not any("direction" in name for name in one)  # weights alone are stored


def test_what_a_run_stores(finished):
    certified = certify_run(finished)
    attack_run(finished, certified=certified)
    metrics = finished.read()
    assert metrics["certify"]["method"] == "margin, LipLT, pairwise"
    liplt, naive = (metrics["constants"][name] for name in ("liplt", "naive"))
    for mean in (liplt, naive):
        assert 0 < mean["pairwise"] <= mean["sum"] * (1 + 1e-12)
        assert mean["pairwise"] <= mean["sqrt2"] * (1 + 1e-12)
    assert liplt["pairwise"] < naive["pairwise"]
    stored = safetensors.torch.load_file(finished.path / "certificates.safetensors")
    assert bool((stored["radius"] >= stored["radius_of_product"]).all())
    assert bool((stored["radius"] > stored["radius_of_product"]).any())
    for eps, share in naive["certified"].items():
        assert share <= metrics["certify"]["test"]["certified"][eps]
    assert "constants of two logits by LipLT" in table(metrics, TINY)


@pytest.mark.usefixtures("clock")
def test_bounds_of_a_run(finished):
    result = bound_run(finished, seconds=3)
    by_name = {m["method"]: m["bound"] for m in result["methods"]}
    assert by_name["liplt"] < by_name["product"] <= result["exported"] * (1 + 1e-9)
    assert result["lower"]["bound"] <= result["best"]
    assert finished.read()["bound"]["best"] == result["best"]


@pytest.mark.parametrize("loss", ["crm", "gloro"])
@pytest.mark.parametrize("constants", ["liplt", "product"])
def test_losses_train_with_either_constants(tmp_path, loss, constants):
    objective = {"start_epoch": 0} if loss == "crm" else {"epsilon": 0.1}
    run = run_of(tmp_path / "run", loss=loss, constants=constants, objective=objective, epochs=1)
    assert train(run, progress=False)


def test_the_head_of_a_1_lipschitz_network_is_all_that_counts(tmp_path):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), UnitNormLinear(6, 3))
    found = pairwise_estimate("head", model, (4,))(model)
    rows = model[1].weight.detach()
    torch.testing.assert_close(found, torch.cdist(rows, rows), atol=1e-3, rtol=1e-3)
    run = run_of(
        tmp_path / "run",
        model="mnist_dense",
        network={"features": [16]},
        constants="head",
        certificate="product",
        objective={"start_epoch": 0},
        epochs=1,
    )
    assert train(run, progress=False)
    with pytest.raises(UsageError, match="ends in a linear layer"):
        pairwise_estimate("head", nn.Sequential(nn.Linear(2, 2), nn.ReLU()), (2,))


def test_radii_grow():
    """A few steps of CRM on LipLT raise the mean certified radius of a fixed batch."""
    torch.manual_seed(0)
    data = load("digits", "train")
    x, y = data.inputs[:256].float().div(255), data.labels[:256]
    model = MODELS["4c3f"]((1, 8, 8), 10, width=0.0625)
    constants = pairwise_estimate("liplt", model, (1, 8, 8))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    means = []
    for step in range(160):
        optimizer.zero_grad()
        logits, slopes = model(x), constants(model)
        radii = rival_radii(logits, y, slopes).detach().amin(1)
        means.append(float(radii.clamp_min(0).mean()))
        loss = nn.functional.cross_entropy(logits, y)
        (loss if step < 100 else CRM(1.0, 5.0)(logits, y, slopes)).backward()
        optimizer.step()
    assert means[-1] > 2 * means[99] > 0
