"""Lipschitz extensions: their formula, the constant 1, smooth maxima, and rounding."""

from fractions import Fraction
from math import isqrt

import pytest
import torch
from torch import nn

import onelip
from onelip.certificates.forward_error import forward_error
from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.layers import LipschitzExtension
from onelip.models import extension_critic


def made(features=3, points=7, share=0.3, scale=1.0, dtype=torch.float64):
    torch.manual_seed(0)
    layer = LipschitzExtension(features, points, dtype=dtype).eval()
    with torch.no_grad():
        layer.points.mul_(scale)
        layer.heights.copy_(8 * scale * torch.randn(points))
        layer.share.fill_(share)
    return layer


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0, -2.0, 5.0])
@pytest.mark.parametrize("training", [False, True])
def test_formula(share, training):
    layer, x = made(share=share).train(training), torch.randn(20, 3, dtype=torch.float64)
    values, far = layer.heights / 8, (x[:, None] - layer.points).norm(dim=2)
    part = min(max(share, 0.0), 1.0)
    expected = (1 - part) * (values - far).amax(1) + part * (values + far).amin(1)
    torch.testing.assert_close(layer(x)[:, 0], expected, rtol=0, atol=1e-13)


def test_values_that_are_1_lipschitz_are_extended():
    """The extension of values of a 1-Lipschitz function takes them at the points."""
    layer = made(points=40)
    values = layer.points.detach().norm(dim=1)
    with torch.no_grad():
        layer.heights.copy_(8 * values)
    torch.testing.assert_close(layer(layer.points)[:, 0], values, rtol=0, atol=1e-12)


@pytest.mark.parametrize("temperature", [0.0, 1e-3, 0.15, 10.0])
@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_no_pair_is_stretched_whatever_the_weights(temperature, share):
    layer = made(features=4, points=30, share=share, scale=3.0).train()
    layer.temperature = temperature
    x, y = 5 * torch.randn(2, 500, 4, dtype=torch.float64)
    near = x + 1e-6 * torch.randn(500, 4, dtype=torch.float64)
    for other in (y, near):
        rise = (layer(x) - layer(other))[:, 0].abs()
        assert (rise <= (x - other).norm(dim=1) + 1e-8).all()


@pytest.mark.parametrize("share", [0.0, 1.0])
def test_the_constant_is_attained_and_gradients_have_length_one(share):
    layer = made(share=share)
    x = torch.randn(50, 3, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x).sum(), x)
    torch.testing.assert_close(gradient.norm(dim=1), torch.ones(50, dtype=torch.float64))
    assert float(onelip.lipschitz_bound(layer)) == 1


def test_smooth_maxima_are_those_of_torch_and_end_at_the_maximum():
    layer, x = made().train(), torch.randn(20, 3, dtype=torch.float64)
    sharp = layer(x)
    values, far = layer.heights / 8, (x[:, None] - layer.points).norm(dim=2)
    for t in (1e-4, 0.15, 2.0):
        layer.temperature = t
        below = t * ((values - far) / t).logsumexp(1)
        above = -t * (-(values + far) / t).logsumexp(1)
        torch.testing.assert_close(layer(x)[:, 0], 0.7 * below + 0.3 * above, rtol=0, atol=1e-6)
    layer.temperature = 1e-6
    torch.testing.assert_close(layer(x), sharp, rtol=0, atol=1e-4)
    layer.temperature = 2.0
    torch.testing.assert_close(layer.eval()(x), sharp)  # eval mode does not look at it


def test_gradients_of_smooth_maxima():
    layer = made().train()
    layer.temperature = 0.2
    x = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    names = ("points", "heights", "share")

    def run(x, *weights):
        return torch.func.functional_call(layer, dict(zip(names, weights, strict=True)), x)

    weights = [getattr(layer, name).detach().requires_grad_() for name in names]
    assert torch.autograd.gradcheck(run, (x, *weights))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_rounding_is_bounded(dtype, scale):
    """Against rational arithmetic, up to its roots, which are taken to 40 digits."""
    layer = made(features=6, points=9, scale=scale, dtype=dtype)
    x = (scale * torch.randn(20, 6)).to(dtype)
    reach = float(x.double().norm(dim=1).max()) * (1 + 1e-9)
    bound = forward_error(layer, (6,), reach)
    share = Fraction(float(layer.share.detach()))
    off = 0.0
    for sample, score in zip(x.tolist(), layer(x)[:, 0].tolist(), strict=True):
        below, above = [], []
        for point, height in zip(layer.points.tolist(), layer.heights.tolist(), strict=True):
            pairs = zip(sample, point, strict=True)
            far = root(sum((Fraction(a) - Fraction(b)) ** 2 for a, b in pairs))
            below.append(Fraction(height) / 8 - far)
            above.append(Fraction(height) / 8 + far)
        exact = (1 - share) * max(below) + share * min(above)
        off = max(off, abs(float(Fraction(score) - exact)))
    assert off <= float(bound) < 1e3 * torch.finfo(dtype).eps * scale * 10
    assert off > 0


def root(square: Fraction) -> Fraction:
    scale = 10**40
    return Fraction(isqrt(int(square * scale * scale)), scale)


def test_rounding_in_training_mode_is_not_known():
    with pytest.raises(UnboundedModuleError, match="LipschitzExtension"):
        made().train().forward_error(None)


@pytest.mark.parametrize("name", ["points", "heights", "share"])
def test_weights_that_are_not_finite_have_no_bound(name):
    layer = made()
    getattr(layer, name).data.view(-1)[0] = torch.nan
    with pytest.raises(NonFiniteError):
        onelip.lipschitz_bound(layer)


def test_bad_sizes_are_refused():
    with pytest.raises(ValueError, match="must be positive"):
        LipschitzExtension(3, 0)
    with pytest.raises(ValueError, match=r"expected \(batch, 3\)"):
        made()(torch.zeros(4, 2))


def test_critics_begin_at_samples_and_export_what_they_are():
    torch.manual_seed(0)
    p, q = 1000 + 5 * torch.randn(200, 2), 1000 - 5 * torch.randn(200, 2)
    critic = extension_critic(2, (16,), samples=(p, q)).eval()
    starts = critic[-1].points * critic[1].std + critic[1].mean
    near = torch.cdist(starts.detach().double(), torch.cat([p, q]).double()).amin(1)
    assert float(near.max()) < 1e-2
    exported = onelip.export(critic)
    assert torch.equal(exported(p), critic(p))
    scale = float(critic[1].std[0])
    assert float(onelip.lipschitz_bound(exported)) == pytest.approx(1 / scale, rel=1e-6)


def test_critics_of_equal_samples_have_a_scale():
    critic = extension_critic(2, (4,), samples=(torch.ones(5, 2), torch.ones(5, 2)))
    assert torch.isfinite(critic(torch.ones(1, 2))).all()
    assert isinstance(critic[0], nn.Flatten)
