"""Schedules, optimizers and what decays."""

import dataclasses
import itertools

import pytest
import torch
from torch import nn

from onelip import layers
from onelip.data import open_data
from onelip.experiments.classification.training.classifier import (
    OPTIMIZERS,
    Classifier,
    _parameter_groups,
)
from onelip.experiments.classification.training.schedule import (
    SCHEDULES,
    exponential,
    late_exponential,
    one_cycle,
)
from onelip.experiments.recipes import RECIPES


@pytest.mark.parametrize("name", SCHEDULES)
def test_factors(name):
    factors = [SCHEDULES[name](step / 1000) for step in range(1001)]
    assert max(factors) == pytest.approx(1, abs=1e-9)
    assert min(factors) >= -1e-12
    assert SCHEDULES[name](1.0) < 0.011
    largest_jump = max(abs(a - b) for a, b in itertools.pairwise(factors))
    assert largest_jump <= (0.9 + 1e-9 if name == "steps" else 0.015)


def test_exponential_is_the_published_rate():
    assert exponential(1 / 200) == pytest.approx(0.96235062639, rel=1e-12)


@pytest.mark.parametrize(("name", "start", "epochs"), [("1/16", 25, 400), ("1/3", 100, 300)])
def test_late_exponentials_in_epochs(name, start, epochs):
    """Constant, then the same factor every epoch, to a thousandth behind the last."""
    rates = [SCHEDULES[f"exponential-from-{name}"](e / epochs) for e in range(epochs + 1)]
    factor = 0.001 ** (1 / (epochs - start))
    expected = [1.0] * start + [factor**e for e in range(epochs - start + 1)]
    assert rates == pytest.approx(expected, rel=1e-9)


def test_late_exponential_from_the_start():
    assert late_exponential(0.25, start=0.0) == pytest.approx(1e-3**0.25)


def test_one_cycle_is_torchs():
    parameter = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=1.0, total_steps=1001, final_div_factor=1e12
    )
    for step in range(1000):
        # torch ends the rise one step early: compare where both have moved on
        assert optimizer.param_groups[0]["lr"] == pytest.approx(one_cycle(step / 1000), abs=6e-3)
        optimizer.step()
        schedule.step()


def test_vectors_do_not_decay():
    model = nn.Sequential(layers.CholeskyLinear(4, 3), layers.UnitNormLinear(3, 2))
    decaying, others = _parameter_groups(model, 0.1)
    assert [tuple(p.shape) for p in decaying["params"]] == [(1, 4, 3), (2, 3)]
    assert [tuple(p.shape) for p in others["params"]] == [(3,), (2,)]
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.1, 0.0)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers(name):
    recipe = dataclasses.replace(RECIPES["digits"], optimizer=name, weight_decay=0.5, lr=0.25)
    optimizer = OPTIMIZERS[name](_parameter_groups(nn.Linear(2, 2), 0.5), lr=recipe.lr)
    assert optimizer.param_groups[0]["weight_decay"] == 0.5
    assert optimizer.param_groups[0]["lr"] == 0.25
    if name == "sgd":
        assert optimizer.param_groups[0]["momentum"] == 0.9


def test_projection_every_so_many_updates(monkeypatch):
    recipe = dataclasses.replace(RECIPES["digits"], projection_interval=3)
    classifier = Classifier(
        nn.Linear(2, 2), nn.CrossEntropyLoss(), recipe, open_data("digits", validation=150)
    )
    calls = []
    monkeypatch.setattr(
        "onelip.experiments.classification.training.classifier.project",
        lambda _: calls.append(step),
    )
    for step in range(1, 8):
        monkeypatch.setattr(Classifier, "global_step", step)
        classifier.on_train_batch_end()
    assert calls == [3, 6]
