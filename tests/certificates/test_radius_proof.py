"""Certificates from LipLT: against the product, attacks and the exact distance."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import onelip
from onelip import bounds, certify, layers
from onelip.errors import UnboundedModuleError
from onelip.layers import MaxMin
from onelip.reading import read


@pytest.fixture(scope="module")
def trained():
    """A plain ReLU network on three blobs in the unit square."""
    torch.manual_seed(0)
    centres = torch.tensor([[0.2, 0.2], [0.8, 0.3], [0.5, 0.8]])
    labels = torch.arange(300) % 3
    x = (centres[labels] + 0.08 * torch.randn(300, 2)).clamp(0, 1)
    model = nn.Sequential(
        nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    return model.eval(), x, labels


def test_radii_are_larger_than_those_of_the_product(trained):
    model, x, labels = trained
    product = certify(model, x, labels)
    liplt = certify(model, x, labels, method="liplt")
    assert (liplt.method, liplt.head, product.method) == ("liplt", "pairwise", "product")
    assert bool((liplt.radius >= product.radius * (1 - 1e-12)).all())
    assert float(liplt.radius.mean()) > 1.1 * float(product.radius.mean())
    assert float(liplt.bound) <= float(product.bound)


def test_each_radius_is_the_smallest_quotient(trained):
    model, x, _ = trained
    certificate = certify(model, x, method="liplt")
    pairs = bounds.LipLT().logit_bounds(read(model, (2,))).pairwise
    logits = model(x).double().detach()
    for i in range(0, 300, 37):
        y = int(certificate.prediction[i])
        quotients = [float((logits[i, y] - logits[i, j]) / pairs[y, j]) for j in range(3) if j != y]
        assert float(certificate.radius[i]) == pytest.approx(min(quotients), rel=1e-12)


def test_nothing_inside_a_radius_changes_the_label(trained):
    model, x, _ = trained
    certificate = certify(model, x, method="liplt")
    directions = F.normalize(torch.randn(64, 1, 2), dim=2)
    moved = x + directions * certificate.radius.float()[:, None]
    labels = model(moved.flatten(0, 1)).argmax(1).unflatten(0, (64, -1))
    assert bool((labels == certificate.prediction).all())


def test_one_lipschitz_networks_lose_nothing():
    torch.manual_seed(0)
    model = nn.Sequential(
        layers.CholeskyLinear(6, 8),
        MaxMin(),
        layers.CholeskyLinear(8, 8),
        MaxMin(),
        layers.UnitNormLinear(8, 4),
    ).eval()
    exported, x = onelip.export(model), torch.rand(50, 6)
    product, liplt = certify(exported, x), certify(exported, x, method="liplt")
    assert bool((liplt.radius >= product.radius * (1 - 1e-9)).all())


def test_unknown_modules_are_refused_by_both():
    model = nn.Sequential(nn.Linear(2, 3), nn.Hardshrink()).eval()
    for method in ("product", "liplt"):
        with pytest.raises(UnboundedModuleError, match="hardshrink"):
            certify(model, torch.rand(2, 2), method=method)
