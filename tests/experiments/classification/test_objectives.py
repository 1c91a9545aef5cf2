"""Objectives that look into the head: whole runs, and what they refuse."""

import dataclasses

import pytest
import safetensors.torch
import torch
from torch import nn

from onelip.errors import UsageError
from onelip.experiments.classification import (
    ClassificationFolder,
    attack_run,
    build_loss,
    certify_run,
    table,
    train,
)
from onelip.experiments.classification.training.objectives import OnHead, OnLogits, objective
from onelip.experiments.recipes import RECIPES
from onelip.layers import MLPHead, UnitNormLinear
from onelip.losses import CRC, OffsetCrossEntropy

TINY = dataclasses.replace(
    RECIPES["digits"],
    network={"head": "mlp", "hidden": 64},
    loss="crc",
    objective={"radius": 0.3, "weight": 0.05, "steps": 2},
    certificate="curvature",
    clip_norm=1.0,
    epochs=4,
    attack_samples=30,
    attack_steps=10,
)


def run_of(path, **changes):
    return ClassificationFolder.create(dataclasses.replace(TINY, **changes), path)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    run = run_of(tmp_path_factory.mktemp("crc") / "run")
    assert train(run, progress=False)
    return run


def test_a_resumed_run_is_the_uninterrupted_one(finished, tmp_path, whole_epochs):
    run = run_of(tmp_path / "run")
    while not train(run, progress=False, max_minutes=1e-9):
        pass
    one, other = (safetensors.torch.load_file(r.weights) for r in (finished, run))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not any("vectors" in name for name in one)  # weights alone are stored


def test_clipping_and_the_penalty_change_what_is_learnt(finished, tmp_path):
    losses = [epoch["loss"] for epoch in finished.read()["train"]["epochs"]]
    for name, changes in (
        ("free", {"clip_norm": 0.0}),
        ("bent", {"objective": {**TINY.objective, "weight": 0.0}}),
    ):
        other = run_of(tmp_path / name, epochs=1, **changes)
        assert train(other, progress=False)
        assert other.read()["train"]["epochs"][0]["loss"] != losses[0]


def test_linear_heads_are_trained_alike(tmp_path):
    for head in ("linear", "unit-rows"):
        run = run_of(tmp_path / head, network={"head": head}, certificate="product", epochs=1)
        assert train(run, progress=False)


def test_the_loss_is_that_of_the_moved_features():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 5), MLPHead(5, 3, hidden=7))
    step = objective(CRC(radius=0.4, weight=0.0), model, (1, 2, 2))
    images, labels = torch.rand(6, 1, 2, 2), torch.tensor([0, 1, 2, 0, 1, 2])
    features = model[1](model[0](images))
    expected = step.loss(features, labels, model[2], None)
    torch.testing.assert_close(step(model, images, labels, 0), expected)
    penalised = objective(CRC(radius=0.4, weight=1.0), model, (1, 2, 2))
    assert penalised(model, images, labels, 0).item() > expected.item()


def test_which_objective_a_loss_gets():
    model = nn.Sequential(nn.Flatten(), UnitNormLinear(4, 3))
    assert type(objective(OffsetCrossEntropy(), model, (1, 2, 2))) is OnLogits
    found = objective(CRC(), model, (1, 2, 2))
    assert type(found) is OnHead
    assert found.estimate is None
    with pytest.raises(UsageError, match="needs a network that is a Sequential"):
        objective(CRC(), nn.Linear(2, 2), (2,))


def test_what_a_run_stores(finished):
    certified = certify_run(finished)
    attack_run(finished, certified=certified)
    metrics = finished.read()
    assert metrics["certify"]["method"] == "curvature, mlp"
    head = metrics["tightness"]
    assert 0 <= head["exact"] <= 1
    assert 0 < head["ratio"] <= 1
    assert 0 <= head["pairs_proved"] <= 90
    assert "in front of the head: " in table(metrics, TINY)
    assert "curvature of " in table(metrics, TINY)


def test_a_certificate_that_the_head_does_not_allow_is_refused_before_training(tmp_path):
    network = {"head": "unit-rows"}
    run = run_of(tmp_path / "run", network=network, loss="cross-entropy", objective={})
    with pytest.raises(UsageError, match="UnitNormLinear: certify it with method='product'"):
        train(run, progress=False)
    assert not run.checkpoint.exists()


def test_a_training_step_needs_one_number():
    recipe = dataclasses.replace(RECIPES["digits"], objective={"reduction": "none"})
    with pytest.raises(UsageError, match="a training step needs one number"):
        build_loss(recipe)
    recipe = dataclasses.replace(RECIPES["digits"], objective={"reduction": "sum"})
    assert build_loss(recipe).reduction == "sum"
