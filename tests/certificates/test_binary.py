"""Binary models with one logit, where floating point ends."""

import torch
from torch import nn

from onelip import certify

TINY = 2.0**-149  # the smallest float32 number


def test_a_logit_whose_half_is_rounded_certifies_nothing():
    """Half of three times the smallest number is two of them: the margin was a third too large."""
    model = nn.Sequential(nn.Linear(1, 1)).eval().requires_grad_(False)
    model[0].weight.fill_(4 * TINY)
    model[0].bias.fill_(-3 * TINY)
    certificate = certify(model, torch.tensor([[0.0]]))
    assert float(model(torch.tensor([[0.99]]))) > 0  # the other class, 0.99 away
    assert certificate.prediction.item() == 0
    assert certificate.radius.item() == 0


def test_normal_logits_keep_their_radius():
    model = nn.Sequential(nn.Linear(1, 1)).eval().requires_grad_(False)
    for scale in (1.0, 2.0**-120):
        model[0].weight.fill_(4 * scale)
        model[0].bias.fill_(-3 * scale)
        radius = certify(model, torch.tensor([[0.0]])).radius.item()
        assert 0.75 * (1 - 1e-6) <= radius <= 0.75
