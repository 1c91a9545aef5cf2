"""A plug-and-play denoiser that must converge."""

import math

import pytest
import torch
from torch import nn

from examples import plot_denoiser
from onelip.layers import GradientStep


def test_small_run():
    found = plot_denoiser.run(epochs=1, depth=2, hidden=32, steps=30)
    half, full, flips = (found[k] for k in ("half step", "full step", "full step, negative"))
    assert half["constant"] == 1
    assert half["chain"] == pytest.approx(1 / 3 + 1 + 2, abs=1e-3)  # t = 1/2, clipping, two layers
    assert half["proved"] == pytest.approx(8 * math.sqrt(half["chain"] / 30))
    assert half["grew"] == 0
    assert full["chain"] == flips["chain"] == math.inf
    assert flips["constant"] == pytest.approx(1)
    assert flips["moving"] == 450


def test_the_check_can_fail():
    flip = GradientStep(torch.eye(64), torch.full((64,), -0.5), nn.Identity(), torch.tensor(2.0))
    iteration = plot_denoiser.iterated(flip.double(), torch.zeros(4, 64), torch.zeros(64), 0.5)
    with torch.no_grad():
        _, lengths = plot_denoiser.steps_of(iteration, torch.rand(4, 64).double(), 3)
        with pytest.raises(AssertionError, match="not averaged"):
            plot_denoiser.check(iteration, lengths, 10.0, 1e-12)
        with pytest.raises(AssertionError, match="grew"):
            plot_denoiser.check(iteration, lengths.flip(0) + torch.arange(3)[:, None], 10.0, 1e-12)
