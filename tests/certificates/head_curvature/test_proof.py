"""Curvature certificates of networks: what they divide by, what they read, what they refuse."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip import certify, layers
from onelip.bounds.head_curvature import Curvature, TwoLayers
from onelip.certificates import HeadCurvature, Proved, radius_proof
from onelip.errors import UnboundedModuleError, UsageError


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Sequential, Tensor, Tensor]:
    """An orthogonal body and an MLP head on three blobs in the unit square."""
    torch.manual_seed(0)
    centres = torch.tensor([[0.2, 0.2], [0.8, 0.3], [0.5, 0.8]])
    labels = torch.arange(300) % 3
    x = (centres[labels] + 0.08 * torch.randn(300, 2)).clamp(0, 1)
    body = [layers.CholeskyLinear(2, 8), layers.MaxMin(), layers.CholeskyLinear(8, 8)]
    model = nn.Sequential(*body, layers.MaxMin(), layers.MLPHead(8, 3, hidden=16))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    return onelip.export(model.eval()), x, labels


def test_radii_are_larger_than_those_of_the_product_and_hold(trained):
    model, x, labels = trained
    product = certify(model, x, labels)
    curved = certify(model, x, labels, method="curvature")
    assert (curved.method, curved.head) == ("curvature", "mlp")
    right = curved.prediction == labels
    assert bool((curved.radius >= product.radius)[right].all())
    assert float(curved.radius.mean()) > 1.1 * float(product.radius.mean())
    angles = torch.arange(64) * (math.tau / 64)
    circle = torch.stack([angles.cos(), angles.sin()], 1)[:, None]
    for share in (0.3, 0.7, 0.9999):
        moved = x + share * circle * curved.radius.float()[:, None]
        labels_there = model(moved.flatten(0, 1)).argmax(1).unflatten(0, (64, -1))
        assert bool((labels_there == curved.prediction)[:, right].all())


def test_the_closest_point_that_a_grid_finds_is_further_away(trained):
    model, x, _ = trained
    curved = certify(model, x[:60], method="curvature")
    steps = torch.linspace(-0.5, 1.5, 801)
    grid = torch.cartesian_prod(steps, steps)
    found = model(grid).argmax(1)
    for sample, label, radius in zip(x, curved.prediction, curved.radius, strict=False):
        nearest = (grid[found != label] - sample).norm(dim=1).min()
        assert float(radius) <= float(nearest) * (1 + 1e-6)


@pytest.mark.parametrize("factor", [1 + 1e-6, 2.0, 0.5])
def test_the_head_radius_is_divided_by_the_proved_bound_of_the_body(trained, factor):
    """A body that stretches by 1.000001 is no 1-Lipschitz network, and is treated as it is."""
    model, x, _ = trained
    stretched = nn.Sequential(*model[:-1], layers.Rescale(factor), model[-1]).eval()
    certificate = certify(stretched, x, method="curvature")
    body = float(onelip.lipschitz_bound(nn.Sequential(*stretched[:-1])))
    assert body == pytest.approx(factor, rel=1e-6)
    assert float(certificate.body_bound) == body
    head = certificate.head_radii.radius
    torch.testing.assert_close(certificate.radius, head / body, rtol=1e-14, atol=0)
    assert bool((certificate.radius.double() * body <= head).all())
    unit = certify(model, x, method="curvature")
    if factor == 1 + 1e-6:
        torch.testing.assert_close(certificate.radius, unit.radius, rtol=1e-3, atol=1e-6)
    else:
        assert not torch.allclose(certificate.radius, unit.radius, rtol=1e-3)


def test_a_head_alone_and_its_layer_before_export(trained):
    model, x, _ = trained
    head = nn.Sequential(layers.MLPHead(2, 3, hidden=5)).eval()
    whole = certify(head, x, method="curvature")
    plain = certify(onelip.export(head), x, method="curvature")
    assert torch.equal(whole.radius, plain.radius)
    assert float(whole.body_bound) == 1
    assert len(whole.layer_bounds) == 1
    assert len(plain.layer_bounds) == 3
    assert certify(model, x, method="curvature").head_radii.witness.shape == (300, 8)


def test_witnesses_are_points_where_the_head_says_something_else(trained):
    model, x, _ = trained
    certificate = certify(model, x, method="curvature")
    found = certificate.head_radii
    features = nn.Sequential(*model[:-1])(x).double()
    there = found.distance.isfinite()
    assert float(there.double().mean()) > 0.9
    assert bool((found.radius <= found.distance).all())
    head = TwoLayers.of(*model[-1])
    scores = head(found.witness[there])
    rows = torch.arange(len(scores))
    own = scores[rows, certificate.prediction[there]]
    assert bool((own <= scores[rows, found.rival[there]]).all())
    away = (found.witness - features).norm(dim=1)[there]
    assert bool((away <= found.distance[there]).all())
    torch.testing.assert_close(away, found.distance[there], rtol=1e-9, atol=0)


def test_wrong_predictions_have_radius_0(trained):
    model, x, labels = trained
    certificate = certify(model, x, (labels + 1) % 3, method="curvature")
    wrong = certificate.prediction != (labels + 1) % 3
    assert bool((certificate.radius[wrong] == 0).all())
    assert bool(wrong.any())


def test_proofs_are_of_what_was_asked(trained):
    model, x, _ = trained
    proved = HeadCurvature().radius_proof(model, (2,))
    again = certify(model, x, method=Proved(proved))
    assert proved.curvature.proved_pairs <= 6
    torch.testing.assert_close(
        again.radius, certify(model, x, method="curvature").radius, rtol=1e-12, atol=0
    )
    assert dataclasses.is_dataclass(proved)
    margins = proved.pairwise(3)
    product = radius_proof("product", model, (2,)).pairwise(3)
    assert bool((margins <= product * (1 + 1e-12)).all())  # the floor: LipLT of the head


@pytest.mark.parametrize(
    ("tail", "error", "message"),
    [
        ([nn.Linear(4, 3)], UsageError, "ends in layers.MLPHead, or in nn.Linear"),
        ([nn.Softplus(), nn.Linear(4, 3)], UsageError, "ends in layers.MLPHead"),
        ([nn.Linear(4, 3), nn.Softplus()], UsageError, "ends in layers.MLPHead"),
        ([nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)], UnboundedModuleError, "of ReLU"),
    ],
)
def test_other_networks_are_refused(tail, error, message):
    model = nn.Sequential(nn.Flatten(), *tail).eval()
    with pytest.raises(error, match=message):
        certify(model, torch.rand(2, 1, 2, 2), method="curvature")


def test_the_curvature_of_a_pair_is_that_of_the_prediction_against_the_rival():
    """Upwards curvature is harmless: of a head that bends in one direction only."""
    inner, outer = nn.Linear(1, 1).double(), nn.Linear(1, 2).double()
    inner.weight.data, inner.bias.data = torch.ones(1, 1).double(), torch.zeros(1).double()
    outer.weight.data = torch.tensor([[1.0], [0.0]]).double()
    outer.bias.data = torch.tensor([0.0, 0.5]).double()
    curvature = Curvature(TwoLayers.of(inner, nn.Softplus(), outer))
    zero, one = torch.tensor([0]), torch.tensor([1])
    assert float(curvature(zero, one)) <= 1e-100
    assert float(curvature(one, zero)) == pytest.approx(0.25)
    model = nn.Sequential(inner, nn.Softplus(), outer).eval()
    boundary = math.log(math.expm1(0.5))
    certificate = certify(model, torch.tensor([[0.9]]).double(), method="curvature")
    assert certificate.radius.item() == pytest.approx(0.9 - boundary, rel=1e-4)
    assert certificate.radius.item() <= 0.9 - boundary


def test_a_body_that_is_constant_and_a_tie():
    """0 / 0: a tie has radius 0, also behind a body that nothing moves."""
    head = layers.MLPHead(2, 2, hidden=3)
    head.outer.weight.data[1], head.outer.bias.data[1] = head.outer.weight[0], head.outer.bias[0]
    model = nn.Sequential(layers.Rescale(0.0), head).eval()
    x = torch.rand(3, 2)
    for level in ("real", "float"):
        certificate = certify(onelip.export(model), x, method="curvature", level=level)
        assert certificate.radius.tolist() == [0.0] * 3


def test_activations_that_work_in_place():
    torch.manual_seed(0)
    inner, outer = nn.Linear(4, 6), nn.Linear(6, 3)
    x = torch.rand(5, 4)
    radii = [
        certify(nn.Sequential(inner, phi, outer).eval(), x, method="curvature").radius
        for phi in (nn.SiLU(), nn.SiLU(inplace=True))
    ]
    assert torch.equal(*radii)


def test_constants_are_those_of_the_weights_when_they_were_proved():
    model = nn.Sequential(layers.MLPHead(3, 3, hidden=4)).eval().double()
    proved = HeadCurvature().radius_proof(model, (3,))
    before = float(proved.curvature(torch.tensor([0]), torch.tensor([1])))
    model[0].inner.weight.data.mul_(10)
    assert float(Curvature(proved.layers)(torch.tensor([0]), torch.tensor([1]))) == before
