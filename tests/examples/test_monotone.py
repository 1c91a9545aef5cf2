"""A classifier that is monotone in some features, as it is computed."""

import pytest
import torch

from examples import plot_monotone


def test_small_run():
    found = plot_monotone.run(splits=1, steps=150, width=8)
    monotone, plain = found["monotone"], found["plain"]
    assert monotone["accuracy"] > 0.9
    assert monotone["falls"] == 0
    assert 1 <= monotone["constant"] < 1.0001
    assert monotone["grid"] < 1e-6 < monotone["resolution"]
    assert plain["least slope"] < 0


def test_the_checks_see_a_slope_that_is_too_small():
    body = plot_monotone.bodies(5, 8)["monotone"].eval()
    score, constant, e = plot_monotone.proved(plot_monotone.Score(body, [0, 1], 1.001), 5)
    assert score.slope == pytest.approx(1.001)
    assert e < 1e-10
    score.slope = 0.1 * constant
    x = torch.randn(50, 5).double()
    assert plot_monotone.least_slope(score, x) < 0
    with torch.no_grad():
        assert plot_monotone.falls(score, x, 1e-6) > 0
