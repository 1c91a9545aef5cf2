"""Level float: radii that hold for what the network computes, rounding included."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import onelip
from onelip import certify, layers
from onelip.certificates.forward_error import forward_error
from onelip.errors import UnboundedModuleError, UsageError


def network(head: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    body = [nn.Flatten(), layers.CholeskyLinear(16, 24), layers.MaxMin()]
    body += [layers.CholeskyLinear(24, 24), layers.MaxMin()]
    return onelip.export(nn.Sequential(*body, head).eval())


def cases():
    torch.manual_seed(1)
    return [
        (network(layers.UnitNormLinear(24, 5)), "product"),
        (network(layers.UnitNormLinear(24, 5)), "liplt"),
        (network(layers.MLPHead(24, 5, hidden=30)), "curvature"),
        (network(layers.MLPHead(24, 5, hidden=30)), "product"),
    ]


@pytest.mark.parametrize(("model", "method"), cases())
def test_radii_lose_what_rounding_can_do_and_next_to_nothing_in_float64(model, method):
    x = torch.rand(40, 1, 4, 4)
    real = certify(model, x, method=method)
    single = certify(model, x, method=method, level="float")
    assert (real.level, single.level) == ("real", "float")
    assert bool((single.radius <= real.radius).all())
    positive = single.radius > 0
    assert bool((single.radius < real.radius)[positive].all())
    assert 0.5 < float(single.radius.sum() / real.radius.sum()) < 0.999999
    model.double()
    real = certify(model, x.double(), method=method)
    double = certify(model, x.double(), method=method, level="float")
    # torch's Softplus is x from 20 on, off by 2e-9, which a margin pays for where it may happen
    torch.testing.assert_close(double.radius, real.radius, rtol=1e-6, atol=1e-7)
    model.float()


def test_the_margin_pays_for_the_rounding_of_two_rows_at_the_attacked_input():
    """Of a linear network with a bias: n additions of sums up to a peak, n products."""
    model = nn.Sequential(nn.Linear(3, 2))
    model.eval().requires_grad_(False)
    x = torch.rand(1, 3)
    real, single = certify(model, x), certify(model, x, level="float")
    row = (model[0].weight[0] - model[0].weight[1]).double().norm().item()
    weight, bias = model[0].weight.double(), model[0].bias.double()
    terms = torch.cat([weight * x.double(), bias[:, None]], 1)
    moved = weight.norm(dim=1) * real.radius
    peak = torch.maximum(terms.clamp(min=0).sum(1), (-terms).clamp(min=0).sum(1)) + moved
    lost = 2.0**-24 * (3 * peak + terms.abs().sum(1) + moved).sum()
    # the float64 logits may be above those in float32, or below, by what they are rounded
    off = (model(x).double() - copy.deepcopy(model).double()(x.double())).abs().sum()
    apart = float(real.radius - single.radius) * row
    assert apart == pytest.approx(float(lost), rel=1e-4, abs=float(off) + 1e-12)
    assert float(lost) > float(off)
    old = 2 * math.sqrt(2) * float(forward_error(model, (3,), float(x.norm() + real.radius)))
    assert apart < 0.7 * old


def test_a_margin_that_rounding_alone_explains_certifies_nothing():
    """Two rows that agree up to the order of a long sum: real level believes the logits."""
    torch.manual_seed(0)
    row = torch.randn(4096)
    model = nn.Sequential(nn.Linear(4096, 2, bias=False)).eval()
    model[0].weight.data = torch.stack([row, row])
    model[0].weight.data[1, 0] += 1e-5
    x = torch.rand(64, 4096)
    real, single = certify(model, x), certify(model, x, level="float")
    assert bool((single.radius == 0).all())
    difference = (model[0].weight[1] - model[0].weight[0]).double()
    distance = (x.double() @ difference).abs() / difference.norm()
    assert bool((real.radius > 1.2 * distance).any())  # what level float is for


@pytest.mark.parametrize(("model", "method"), cases())
def test_no_float_inside_a_radius_computes_another_label(model, method):
    x = torch.rand(30, 1, 4, 4)
    single = certify(model, x, method=method, level="float")
    for _ in range(20):
        direction = F.normalize(torch.randn(30, 16), dim=1).view_as(x)
        moved = x + (0.999999 * single.radius.float()).view(-1, 1, 1, 1) * direction
        inside = (moved - x).double().flatten(1).norm(dim=1) < single.radius
        assert bool((model(moved).argmax(1) == single.prediction)[inside].all())


def test_a_constant_network_has_the_diameter_of_the_box():
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    model[0].weight.data.zero_()
    model[0].bias.data = torch.tensor([1.0, 0.0])
    x = torch.rand(3, 4)
    assert float(certify(model, x).radius.min()) > 1e100
    assert certify(model, x, level="float").radius.tolist() == [2.0] * 3


def test_what_is_refused():
    x = torch.rand(2, 4)
    with pytest.raises(UsageError, match="no level 'exact'"):
        certify(nn.Sequential(nn.Linear(4, 2)).eval(), x, level="exact")
    with pytest.raises(UnboundedModuleError, match="use level='real'"):
        certify(nn.Sequential(layers.BjorckLinear(4, 2)).eval(), x, level="float")


def test_inputs_of_another_dtype_than_the_weights_are_refused():
    """Layers in front of the first weights would round in the dtype of the inputs."""
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 2)).eval().double()
    x = torch.rand(2, 1, 4, 4)
    for level in ("real", "float"):
        with pytest.raises(UsageError, match="inputs are float32, weights float64"):
            certify(model, x, level=level)
    with pytest.raises(UsageError, match="inputs are bfloat16, weights float32"):
        certify(model.float(), x.bfloat16())


def test_inputs_are_left_alone_by_modules_that_work_in_place():
    model = nn.Sequential(nn.Flatten(), nn.SiLU(inplace=True), nn.Linear(4, 2)).eval()
    x = torch.ones(2, 1, 2, 2)
    certify(model, x, level="float")
    assert bool((x == 1).all())


def test_no_samples():
    model = nn.Sequential(nn.Linear(4, 2)).eval()
    assert certify(model, torch.rand(0, 4), level="float").radius.shape == (0,)


def test_float_radii_never_exceed_real_ones_which_set_the_reach():
    torch.manual_seed(0)
    for seed in range(20):
        torch.manual_seed(seed)
        model = nn.Sequential(layers.MLPHead(3, 4, hidden=6)).eval().double()
        model = onelip.export(model)
        x = torch.rand(30, 3, dtype=torch.float64)
        real = certify(model, x, method="curvature")
        single = certify(model, x, method="curvature", level="float")
        assert bool((single.radius <= real.radius).all())


def test_subnormal_weights_are_refused():
    """With weights 2^120, 2^-127 and 2^7 in a row, flushing changed 27 of 64 predictions."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval().requires_grad_(False)
    model[0].weight[0, 0] = 2.0**-127
    x = torch.rand(3, 2)
    with pytest.raises(UnboundedModuleError, match=r"0\.weight holds numbers below 1\.18e-38"):
        onelip.certify(model, x, level="float")
    assert onelip.certify(model, x).radius.shape == (3,)
    assert onelip.certify(model.double(), x.double(), level="float").radius.shape == (3,)


def test_inputs_that_are_flushed_are_charged():
    """A large weight makes much of a subnormal input, which may count as 0."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False)).eval().requires_grad_(False)
    model[0].weight.fill_(2.0**100)
    error = forward_error(model, (1,), 2.0**-126)
    assert float(error) >= 2.0**100 * (2.0**-126 - 2.0**-149)


def test_samples_before_a_bending_head_pay_for_the_worst_of_a_small_group(monkeypatch):
    """In groups of four of a like rounding; each radius stays in its place."""
    model = network(layers.MLPHead(24, 5, hidden=30))
    torch.manual_seed(2)
    x = torch.rand(40, 1, 4, 4) * torch.linspace(0, 1, 40)[torch.randperm(40)].view(-1, 1, 1, 1)
    real = certify(model, x, method="curvature").radius
    together = certify(model, x, method="curvature", level="float").radius
    monkeypatch.setattr("onelip.certificates.head_curvature.proof._TOGETHER", 4)
    apart = certify(model, x, method="curvature", level="float")
    assert bool((apart.radius <= real).all())
    lost = [float((real - radius).sum()) for radius in (together, apart.radius)]
    assert lost[1] < 0.9 * lost[0]
    assert apart.head_radii is not None
    alone = certify(model, x[7:8], method="curvature", level="float")
    torch.testing.assert_close(apart.radius[7:8], alone.radius, rtol=1e-3, atol=1e-6)
