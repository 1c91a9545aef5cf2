"""Means of networks over flips, shifts and networks: what is computed, and what is proved of it."""

import itertools

import pytest
import torch
from torch import nn

import onelip
from onelip import layers
from onelip.bounds import ECLipsE, LipLT, Product
from onelip.certificates.forward_error import forward_error
from onelip.chains import Elementwise, GroupSorting, Opaque
from onelip.errors import UnboundedModuleError, UsageError
from onelip.models import averaged
from onelip.reading import read
from onelip.testing import jacobian_norm

SHAPE = (1, 5, 6)  # an odd height, and sides that differ


def convolutional() -> nn.Sequential:
    return nn.Sequential(
        layers.AOCConv2d(1, 4, 3, padding_mode="zeros"),
        layers.HalfAbs(4),
        layers.AOCConv2d(4, 6, 2, 2, padding=0, padding_mode="zeros"),
        nn.Flatten(),
        layers.MaxMin(),
        layers.CholeskyLinear(36, 8),
        layers.HalfAbs(8),
        layers.UnitNormLinear(8, 4),
    )


def dense() -> nn.Sequential:
    return nn.Sequential(
        nn.Flatten(),
        layers.ZeroPadChannels(32),
        layers.ConvexPotentialLinear(32, 9),
        layers.ConvexPotentialLinear(32, 9),
        layers.UnitNormLinear(32, 4),
    )


def residual() -> nn.Sequential:
    return nn.Sequential(
        layers.Normalize((0.4,), (0.25,)),
        layers.ZeroPadChannels(3),
        layers.ConvexPotentialConv2d(3, 4, image_size=SHAPE[1:]),
        nn.AvgPool2d(2),
        layers.ConvexPotentialConv2d(3, 4, image_size=(2, 3)),
        nn.Flatten(),
        layers.ConvexPotentialLinear(18, 7),
        layers.UnitNormLinear(18, 4),
    )


def plain() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.BatchNorm2d(3),
        nn.LeakyReLU(0.1),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(18, 7),
        nn.ReLU(),
        nn.Linear(7, 4),
    )


NETWORKS = [convolutional, dense, residual, plain]
OVERS = ["flip", "cross", "shifts", "wrapped-shifts", "flip,cross"]


def built(make, count=1):
    found = []
    for seed in range(count):
        torch.manual_seed(seed)
        net = make()
        for part in net.modules():
            if isinstance(part, nn.BatchNorm2d):
                nn.init.uniform_(part.running_var, 0.5, 2)
                nn.init.normal_(part.bias)
        found.append(onelip.export(net.double()).double())
    return found


def images(over, x):
    """The transforms of a batch, written without the library."""

    def shifted(x, down, right, wrap):
        y = x.roll((down, right), (2, 3))
        if not wrap and down:
            y[:, :, 0 if down > 0 else -1] = 0
        if not wrap and right:
            y[:, :, :, 0 if right > 0 else -1] = 0
        return y

    steps = list(itertools.product((-1, 0, 1), repeat=2))
    found = [x]
    for name in over.split(","):
        if name == "flip":
            found = [y for z in found for y in (z, z.flip(3))]
        else:
            kept = [s for s in steps if name != "cross" or 0 in s]
            found = [shifted(z, *s, name.startswith("wrapped")) for z in found for s in kept]
    return found


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("over", OVERS)
def test_the_mean_and_what_is_read_of_it_are_the_explicit_mean(make, over):
    (net,) = built(make)
    x = torch.rand(3, *SHAPE).double()
    wanted = torch.stack([net(y) for y in images(over, x)]).mean(0)
    mean = averaged(net, over)
    assert torch.allclose(mean(x), wanted, atol=1e-12)
    chain = read(onelip.export(mean), SHAPE)
    assert torch.allclose(chain.exact().forward(x), wanted, atol=1e-12)
    kinds = [type(block.nonlinearity) for block in chain.blocks]
    pools = sum(isinstance(part, nn.MaxPool2d) for part in net)
    assert kinds.count(Opaque) == pools
    assert kinds.count(Elementwise) + kinds.count(GroupSorting) >= 1


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("count", [2, 3])
def test_several_networks_side_by_side_are_their_mean(make, count):
    nets = built(make, count)
    x = torch.rand(3, *SHAPE).double()
    wanted = torch.stack([net(y) for net in nets for y in images("flip", x)]).mean(0)
    mean = averaged(nets, "flip")
    assert torch.allclose(mean(x), wanted, atol=1e-12)
    chain = read(mean, SHAPE)
    assert len(chain.blocks) == len(read(nets[0], SHAPE).blocks)
    assert torch.allclose(chain.exact().forward(x), wanted, atol=1e-7)


@pytest.mark.parametrize("make", NETWORKS)
def test_constants_are_those_of_the_network_and_above_every_slope(make):
    (net,) = built(make)
    mean = averaged(net, "shifts")
    own, found = Product().logit_bounds(net, SHAPE), Product().logit_bounds(mean, SHAPE)
    assert torch.allclose(found.pairwise, own.pairwise, rtol=1e-9)
    bounds = [float(onelip.lipschitz_bound(mean, SHAPE))]
    bounds += [float(onelip.lipschitz_bound(mean, SHAPE, method=LipLT()))]
    bounds += [float(m.bound(read(mean, SHAPE))) for m in (Product(), LipLT())]
    slopes = [float(jacobian_norm(mean, x)) for x in 3 * torch.randn(40, *SHAPE).double()]
    assert max(slopes) <= min(bounds)
    assert max(slopes) > 0.05 * bounds[0]


def test_a_constant_of_the_mean_is_attained():
    net = nn.Sequential(nn.Flatten(), nn.Linear(30, 2, bias=False)).double().eval()
    net[1].weight.data = torch.stack([torch.ones(30), torch.zeros(30)]).double()
    mean = averaged(net, "wrapped-shifts")
    bound = float(onelip.lipschitz_bound(mean, SHAPE))
    assert bound == pytest.approx(30**0.5, rel=1e-9)
    assert float(jacobian_norm(mean, torch.rand(SHAPE).double())) == pytest.approx(30**0.5)
    assert float(jacobian_norm(mean, torch.rand(SHAPE).double())) <= bound


@pytest.mark.parametrize("method", [Product(), LipLT(), ECLipsE(fast=True)])
def test_pairs_of_an_ensemble_are_the_mean_of_the_pairs(method):
    torch.manual_seed(0)
    nets = []
    for size in (0.5, 3.0, 1.0):  # of constants that differ, also from pair to pair
        net = nn.Sequential(nn.Flatten(), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3))
        net[1].weight.data *= size
        nets.append(net.double().eval())
    shape = (1, 2, 3)
    x = torch.rand(200, *shape).double()
    mean = averaged(nets)
    own = [method.logit_bounds(read(net, shape)).pairwise for net in nets]
    wanted = torch.stack(own).mean(0)
    certificate = onelip.certify(mean, x, method=method)
    logits = mean(x)
    prediction = logits.argmax(1)
    margins = logits.gather(1, prediction[:, None]) - logits
    radius = margins / wanted[prediction]
    radius = radius.scatter(1, prediction[:, None], torch.inf).amin(1)
    assert torch.allclose(certificate.radius, radius, rtol=1e-6)
    assert (certificate.radius <= radius * (1 + 1e-12)).all()
    worse = torch.stack([pairs.amax() for pairs in own]).amax()
    assert (
        certificate.radius.mean()
        > 1.2 * (margins.topk(2, largest=False).values[:, 1] / worse).mean()
    )
    # No difference of two logits is steeper than its constant.
    for i, j in ((0, 1), (1, 2), (0, 2)):
        difference = nn.Sequential(mean, Difference(i, j))
        slopes = [float(jacobian_norm(difference, y)) for y in x[:50]]
        assert max(slopes) <= float(wanted[i, j])


class Difference(nn.Module):
    def __init__(self, i, j):
        super().__init__()
        self.i, self.j = i, j

    def forward(self, x):
        return x[:, self.i : self.i + 1] - x[:, self.j : self.j + 1]


def test_certificates_hold_under_attack_beyond_their_radius_only():
    (net,) = built(plain)
    mean = averaged(net, "flip")
    x = torch.rand(60, *SHAPE).double()
    certificate = onelip.certify(mean, x, method=LipLT())
    generator = torch.Generator().manual_seed(0)
    for _ in range(200):
        step = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        step *= (certificate.radius / step.flatten(1).norm(dim=1))[:, None, None, None]
        assert torch.equal(mean(x + step).argmax(1), certificate.prediction)


@pytest.mark.parametrize("make", NETWORKS)
def test_level_float_counts_the_rounding_of_the_mean(make):
    (net,) = built(make)
    mean, x = averaged(net, "cross,flip"), torch.rand(20, *SHAPE)
    real = onelip.certify(mean, x.double()).radius
    double = onelip.certify(mean, x.double(), level="float").radius
    single = onelip.certify(onelip.export(mean).float(), x, level="float").radius
    assert (double <= real).all()
    assert torch.allclose(double, real, atol=1e-6)
    assert (single < real * (1 + 1e-6)).all()
    assert (single > real - 0.01).all()
    # The error that is counted is above the one that is seen, and not by orders of ten.
    far = onelip.export(mean).float()
    error = float(forward_error(far, SHAPE, 6.0))
    seen = float((far(x).double() - mean(x.double())).norm(dim=1).max())
    assert seen <= error <= 1e4 * seen


def test_level_float_with_wide_sums_costs_next_to_nothing():
    (net,) = built(dense)
    mean, x = averaged(net.float(), "cross"), torch.rand(20, *SHAPE)
    wide = onelip.export(mean, accumulate=torch.float64)
    assert torch.allclose(wide(x), mean(x), atol=1e-5)
    lost = onelip.certify(mean, x).radius - onelip.certify(wide, x, level="float").radius
    narrow = onelip.certify(mean, x).radius - onelip.certify(mean, x, level="float").radius
    assert lost.mean() < 0.5 * narrow.mean()


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
@pytest.mark.parametrize("make", [convolutional, residual])
def test_files_have_the_same_radii(make, suffix, tmp_path):
    (net,) = built(make)
    mean, x = averaged(net.float(), "flip"), torch.rand(5, *SHAPE)
    bound = onelip.save(mean, tmp_path / f"mean.{suffix}", SHAPE)
    assert float(bound) == pytest.approx(float(onelip.lipschitz_bound(mean)), rel=1e-6)
    file = onelip.load(tmp_path / f"mean.{suffix}")
    assert torch.allclose(file(x), (net(x) + net(x.flip(3))) / 2, atol=1e-5)
    ours, theirs = onelip.certify(mean, x).radius, onelip.certify(file, x).radius
    assert torch.allclose(ours, theirs, rtol=1e-4)


@pytest.mark.parametrize("make", NETWORKS)
@pytest.mark.parametrize("count", [1, 2])
def test_bundles_of_means_are_valid(make, count, tmp_path):
    nets = built(make, count)
    mean, x = averaged(nets if count > 1 else nets[0], "flip"), torch.rand(4, *SHAPE).double()
    record = onelip.prove(mean, tmp_path / "bundle", x)  # checked before it gets its name
    assert record["network"]["blocks"]
    proved = torch.tensor([float.fromhex(radius) for radius in record["samples"]["radii"]])
    ours = onelip.certify(mean, x, method=Product(any_size=False)).radius
    assert proved.sum() > (0.95 if count == 1 else 0.7) * ours.sum()
    assert onelip.checker.check.main([str(tmp_path / "bundle")]) == 0


def test_networks_that_are_not_alike_keep_their_constants():
    torch.manual_seed(0)
    wide, narrow = (
        nn.Sequential(nn.Flatten(), nn.Linear(30, n), nn.ReLU(), nn.Linear(n, 3)).eval()
        for n in (8, 5)
    )
    mean, x = averaged([wide, narrow]), torch.rand(4, *SHAPE)
    own = [onelip.lipschitz_bound(net) for net in (wide, narrow)]
    assert float(onelip.lipschitz_bound(mean)) == pytest.approx(float(sum(own)) / 2, rel=1e-9)
    chain = read(mean, SHAPE)
    assert [type(block.nonlinearity) for block in chain.blocks] == [Opaque]
    assert torch.allclose(chain.forward(x), (wide(x) + narrow(x)) / 2, atol=1e-6)


def test_an_activation_with_numbers_of_its_own_is_read_by_its_constant():
    net = nn.Sequential(nn.Flatten(), layers.NActivation(30), nn.Linear(30, 2)).eval()
    mean, x = averaged(net, "flip"), torch.rand(4, *SHAPE)
    chain = read(mean, SHAPE)
    assert [type(block.nonlinearity) for block in chain.blocks] == [Opaque]
    assert torch.allclose(chain.forward(x), (net(x) + net(x.flip(3))) / 2, atol=1e-6)


def test_transforms_of_ones_own_count_with_their_constants():
    net = nn.Sequential(nn.Flatten(), nn.Linear(30, 2)).eval()
    louder = layers.Rescale(3.0, trained=False)
    mean, x = averaged(net, [nn.Identity(), louder]), torch.rand(4, *SHAPE)
    assert torch.allclose(mean(x), (net(x) + net(3 * x)) / 2, atol=1e-5)
    one = float(onelip.lipschitz_bound(net))
    assert float(onelip.lipschitz_bound(mean)) == pytest.approx(2 * one, rel=1e-6)
    assert float(Product().bound(read(mean, SHAPE))) >= 2 * one * (1 - 1e-6)
    ratio = onelip.certify(net, x).bound / onelip.certify(mean, x).bound
    assert float(ratio) == pytest.approx(0.5, rel=1e-6)


def test_training_forms_are_exported_inside():
    torch.manual_seed(0)
    mean = averaged(convolutional(), "flip")
    assert mean[0].training
    exported = onelip.export(mean)
    kinds = {type(part) for part in exported[0].networks[0]}
    assert not kinds & {layers.AOCConv2d, layers.CholeskyLinear}
    assert not any(part.training for part in exported.modules())


def test_binary_networks():
    net = nn.Sequential(nn.Flatten(), nn.Linear(30, 1)).double().eval()
    mean, x = averaged(net, "flip"), torch.rand(4, *SHAPE).double()
    wanted = mean(x).abs().flatten() / net[1].weight.norm()
    assert torch.allclose(onelip.certify(mean, x).radius, wanted, rtol=1e-6)


def test_names_that_are_unknown():
    with pytest.raises(UsageError, match="no average over 'mirror': known are flip, cross"):
        averaged(dense(), "flip,mirror")


def test_a_transform_that_bends_is_no_move():
    """Its last linear map is the identity, and says nothing of what is before."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(30, 2)).double().eval()
    mean, x = averaged(net, [nn.Identity(), nn.LeakyReLU(3.0)]), torch.randn(4, *SHAPE).double()
    assert torch.allclose(mean(x), (net(x) + net(nn.LeakyReLU(3.0)(x))) / 2)
    chain = read(mean, SHAPE)
    assert torch.allclose(chain.forward(x), mean(x))
    bound = float(Product().bound(chain))
    assert bound == pytest.approx(2 * float(onelip.lipschitz_bound(net)), rel=1e-6)


def test_networks_whose_activations_differ_are_not_taken_for_alike():
    nets = [
        nn.Sequential(nn.Flatten(), nn.Linear(30, 4), nn.LeakyReLU(slope), nn.Linear(4, 2)).eval()
        for slope in (0.1, 0.5)
    ]
    mean, x = averaged(nets), torch.rand(4, *SHAPE)
    chain = read(mean, SHAPE)
    assert [type(block.nonlinearity) for block in chain.blocks] == [Opaque]
    assert torch.allclose(chain.forward(x), mean(x), atol=1e-6)


def test_hooks_on_the_mean_itself_are_refused():
    mean = averaged(nn.Sequential(nn.Flatten(), nn.Linear(30, 2)).eval(), "flip")
    mean[0].register_forward_hook(lambda module, inputs, output: 9 * output)
    for method in ("product", "liplt"):
        with pytest.raises(UnboundedModuleError, match="hook"):
            onelip.lipschitz_bound(mean, SHAPE, method=method)
        with pytest.raises(UnboundedModuleError, match="hook"):
            onelip.certify(mean, torch.rand(2, *SHAPE), method=method)


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 3, 3, padding=1), nn.Linear(90, 3)

    def forward(self, x):
        return self.last(torch.relu(self.first(x)).flatten(1))


@pytest.mark.parametrize("method", ["product", "liplt"])
def test_networks_of_classes_of_ones_own_are_traced(method):
    torch.manual_seed(0)
    nets = [Own().eval() for _ in range(2)]
    mean, x = averaged(nets, "flip"), torch.rand(6, *SHAPE)
    own = [float(onelip.lipschitz_bound(net, SHAPE, method=method)) for net in nets]
    found = float(onelip.lipschitz_bound(mean, SHAPE, method=method))
    assert found == pytest.approx(sum(own) / 2, rel=1e-6)
    certificate = onelip.certify(mean, x, method=method)
    assert float(certificate.bound) <= found * (1 + 1e-9)
    wanted = torch.stack([net(y) for net in nets for y in (x, x.flip(3))]).mean(0)
    assert torch.equal(certificate.prediction, wanted.argmax(1))


class Other(Own):
    """Its trace is another function."""

    def forward(self, x):
        return super().forward(x) * (1.0 if torch.compiler.is_exporting() else 9.0)


def test_networks_that_answer_otherwise_than_their_trace_are_refused():
    net, x = Other().eval(), torch.rand(6, *SHAPE)
    for model in (net, averaged(net, "flip")):
        with pytest.raises(UsageError, match="answers otherwise than the trace"):
            onelip.certify(model, x)
