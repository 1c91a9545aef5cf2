"""Conformal sets that hold under attack."""

import math

import pytest
import torch

from examples import plot_conformal


def test_small_run():
    found = plot_conformal.run(epochs=8, depth=2, splits=200, steps=3, held_out=300)
    assert found["rounding"] < 1e-10
    assert 1 < found["constant"] <= 2.001
    rows = found["rows"]
    assert all(row["robust coverage"] >= 0.945 for row in rows)
    assert rows[-1]["plain coverage"] < 0.9 < rows[-1]["robust coverage"]
    assert rows[-1]["robust size"] > rows[-1]["plain size"]


def test_scores_against_a_loop():
    logits = torch.randn(20, 4)
    logits[0, 1] = logits[0].max()  # a tie
    for row, found in zip(logits, plot_conformal.scores(logits), strict=True):
        for y in range(4):
            other = max(row[j] for j in range(4) if j != y)
            assert found[y] == other - row[y]


def test_the_quantile_is_that_of_split_conformal_prediction():
    scores = torch.arange(1.0, 20.0)[torch.randperm(19)]
    assert plot_conformal.quantile(scores, 0.1) == 18  # ceil(20 * 0.9)
    assert plot_conformal.quantile(scores[:8], 0.1) == math.inf  # ceil(9 * 0.9) = 9 of 8


def test_the_check_sees_a_constant_that_is_too_small(monkeypatch):
    monkeypatch.setattr(plot_conformal.onelip, "lipschitz_bound", lambda _: torch.tensor(0.05))
    with pytest.raises(AssertionError, match="more than its constant allows"):
        plot_conformal.run(epochs=2, depth=1, splits=10, steps=2, held_out=100)
