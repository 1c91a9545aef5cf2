"""Rounding errors around samples: never above the bounds, in any order, at attacked inputs."""

import copy
import itertools
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip import layers
from onelip.certificates import float_level
from onelip.certificates.forward_error import forward_error
from onelip.certificates.sample_errors import errors_after_parts, sample_errors
from onelip.errors import NonFiniteError, UnboundedModuleError
from onelip.forward_error import Arithmetic, Computed, Reference, Sums, additions
from onelip.lipschitz import through
from onelip.lipschitz._through import same_in_float64
from tests.cases import CASES
from tests.certificates.summation import ORDERS, run
from tests.certificates.test_forward_error import CASES as WITH_RULES
from tests.certificates.test_forward_error import batch_norm

SINGLE = Arithmetic.of(torch.float32)


def around(x: Tensor, radius: Tensor) -> Computed:
    """What is known of inputs within a radius of samples."""
    point = x.double()
    size = point.flatten(1).norm(dim=1) * (1 + 1e-12) + radius
    lost = SINGLE.lost * math.sqrt(x[0].numel())
    return Computed(tuple(x.shape[1:]), size, lost, near=Reference(point, 0 * radius, radius))


def attacked(x: Tensor, radius: Tensor) -> Tensor:
    """Float32 inputs within the radius: random, sparse, constant and towards 0."""
    random, flat = torch.randn_like(x).flatten(1), torch.ones_like(x).flatten(1)
    spikes = random * (random.abs() > 2)
    directions = [random, random.sign(), spikes, flat, -x.flatten(1)]
    moves = [F.normalize(d.double(), dim=1) * radius[:, None] for d in directions]
    found = [x + (0.999 * move).float().view_as(x) for move in moves]
    assert all(bool(((f - x).double().flatten(1).norm(dim=1) <= radius).all()) for f in found)
    return torch.stack(found)


def samples(shape: tuple[int, ...], count: int = 12) -> Tensor:
    x = torch.rand(count, *shape)
    x[1] *= (torch.rand(shape) > 0.8).float()
    x[2] *= 1e-3
    x[3] = 0
    x[4] *= 1e-38
    return x * 3


def of_layers():
    for name, (build, shape) in WITH_RULES.items():
        yield name, build, shape
    for case in CASES:
        yield case.id, lambda case=case: onelip.export(case.build().eval()), case.input_shape


@torch.no_grad()
def test_layers_at_samples_and_attacked_inputs(each):
    """Their errors, the known vectors, and their distances; every layer that has a rule."""
    known = 0
    for name, build, shape in each(list(of_layers())):
        model = build().eval()
        x = samples(shape)
        if not all(n.dtype == torch.float32 for n in model.state_dict().values() if n.dim()):
            continue
        for radius in (0.0, 0.05, 2.0):
            r = torch.full((len(x),), radius, dtype=torch.float64)
            try:
                found = through(model, around(x, r), SINGLE)
            except UnboundedModuleError:
                continue
            known += 1
            near = found.near
            assert near is not None
            assert near.point.shape[1:] == found.shape
            if not same_in_float64(model):
                continue  # whose exact function is not that in float64: tests of their own below
            twin = copy.deepcopy(model).double()
            exact = twin(x.double()).flatten(1)
            own = 1e-12 * (1 + exact.norm(dim=1))  # of the twin
            assert bool(((near.point.flatten(1) - exact).norm(dim=1) <= near.off + own).all()), name
            for moved in (x, *attacked(x, r)):
                truth = twin(moved.double()).flatten(1)
                error = (model(moved).double().flatten(1) - truth).norm(dim=1)
                assert bool((error <= found.error + own).all()), (name, radius)
                assert bool(((truth - exact).norm(dim=1) <= near.drift + own).all()), name
                assert bool((truth.norm(dim=1) <= found.size + own).all()), name
    assert known > 100


def dense(*sizes: int, activation=layers.MaxMin) -> nn.Sequential:
    parts = []
    for inputs, outputs in itertools.pairwise(sizes):
        linear = nn.Linear(inputs, outputs)
        nn.init.orthogonal_(linear.weight)
        parts += [linear, activation()]
    return nn.Sequential(*parts[:-1]).eval().requires_grad_(False)


def margins(logits: Tensor, prediction: Tensor) -> Tensor:
    return logits.gather(1, prediction[:, None]) - logits


def convolutional() -> nn.Sequential:
    parts = [nn.Conv2d(2, 6, 3, padding=1), layers.MaxMin(), nn.Conv2d(6, 8, 2, stride=2)]
    parts += [nn.ReLU(), nn.Flatten(), nn.Linear(72, 4)]
    return nn.Sequential(*parts).eval().requires_grad_(False)


NETWORKS = {
    "dense": (lambda: dense(40, 32, 32, 5), (40,)),
    "convolutional": (convolutional, (2, 6, 6)),
}


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_order_of_summation_at_attacked_inputs(name, order, fused):
    torch.manual_seed(0)
    build, shape = NETWORKS[name]
    model, x = build(), samples(shape)
    for radius in (0.0, 0.3):
        r = torch.full((len(x),), radius, dtype=torch.float64)
        prediction = model(x).argmax(1)
        found = sample_errors(model, x, r, prediction)
        twin = copy.deepcopy(model).double()
        for seed, moved in enumerate((x, *attacked(x, r))):
            for flush in (False, True):
                logits = run(model, moved, order, seed, fused=fused, flush=flush).double()
                lost = margins(twin(moved.double()), prediction) - margins(logits, prediction)
                assert bool((lost <= found.attacked + 1e-13).all())


def test_the_emulation_is_the_network_but_for_rounding():
    torch.manual_seed(0)
    for build, shape in NETWORKS.values():
        model, x = build(), samples(shape)
        for order in ORDERS:
            found = run(model, x, order, 0, fused=False, flush=True)
            torch.testing.assert_close(found, model(x), rtol=1e-4, atol=1e-5)


def test_a_greedy_order_comes_within_a_factor_of_twenty():
    """So no bound for every order is twenty times smaller: orders as given reach a hundredth."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 4, bias=False)).requires_grad_(False)
    x, first = torch.rand(8, 64), torch.zeros(8, dtype=torch.int64)
    bound = sample_errors(model, x, torch.zeros(8, dtype=torch.float64), first).attacked
    exact = margins(copy.deepcopy(model).double()(x.double()), first)
    seen = {}
    for order in ORDERS:
        logits = run(model, x, order, 0, fused=False, flush=False).double()
        seen[order] = float(((exact - margins(logits, first)).abs() / bound)[:, 1:].max())
    assert 0.05 < seen["greedy"] <= 1
    assert max(seen["as-given"], seen["shuffled"]) < 0.03


@pytest.mark.parametrize("activation", [nn.ReLU, layers.MaxMin, nn.Tanh])
def test_a_sample_pays_for_itself(activation):
    """A faint image next to a bright one; the worst of the old bound, for the same inputs."""
    torch.manual_seed(0)
    model = dense(100, 80, 60, 5, activation=activation)
    x = torch.rand(3, 100) * torch.tensor([[1.0], [0.01], [0.0]])
    zero = torch.zeros(3, dtype=torch.float64)
    prediction = model(x).argmax(1)
    found = sample_errors(model, x, zero, prediction)
    each = [float(e) for e in found.attacked.amax(1)]
    assert each[0] > each[1] > each[2]
    old = math.sqrt(2) * float(forward_error(model, (100,), float(x.norm(dim=1).max()) * 1.00001))
    assert each[0] < 0.8 * old
    for one in range(3):  # alone and in a batch alike
        rows = slice(one, one + 1)
        alone = sample_errors(model, x[rows], zero[rows], prediction[rows])
        torch.testing.assert_close(alone.attacked, found.attacked[rows], rtol=1e-9, atol=0)


def test_it_grows_with_the_radius_and_counts_the_attack():
    """Around 0 nothing is rounded without the attack: a bound from the sample alone is wrong."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(60, 2, bias=False)).requires_grad_(False)
    x, prediction = torch.zeros(1, 60), torch.zeros(1, dtype=torch.int64)
    found = [
        sample_errors(model, x, torch.tensor([r]).double(), prediction).attacked[0, 1]
        for r in (0.0, 0.1, 1.0, 10.0)
    ]
    assert found == sorted(found)
    (moved,) = attacked(x, torch.tensor([10.0]).double())[:1]
    truth = margins(copy.deepcopy(model).double()(moved.double()), prediction)
    lost = max(
        float(
            (truth - margins(run(model, moved, o, s, fused=False, flush=False), prediction)).max()
        )
        for o, s in itertools.product(ORDERS, range(5))
    )
    assert float(found[0]) < lost <= float(found[-1])


def test_zeros_and_padding_cost_nothing():
    torch.manual_seed(0)
    layer = nn.Linear(50, 3)
    layer.weight.data[0, 10:] = 0
    layer.weight.data[1] = 0
    assert additions(layer, (50,)).tolist() == [10, 0, 50]
    layer.bias = None
    assert additions(layer, (50,)).tolist() == [9, 0, 49]
    conv = nn.Conv2d(2, 1, 3, padding=1)
    assert additions(conv, (2, 2, 2)).tolist() == [[[8, 8], [8, 8]]]  # four of nine pixels
    conv = nn.Conv2d(2, 1, 3, padding=1, padding_mode="circular")
    assert additions(conv, (2, 3, 3)).unique().tolist() == [18]
    small = forward_error(nn.Sequential(nn.Conv2d(2, 1, 3, padding=1)), (2, 2, 2), 1.0)
    assert float(small) < float(forward_error(nn.Sequential(conv), (2, 2, 2), 1.0))


def test_sums_at_vectors_are_bounded():
    torch.manual_seed(0)
    layer = nn.Linear(30, 8).requires_grad_(False)
    x = torch.randn(20, 30, dtype=torch.float64)
    sums = Sums.of(layer, x)
    terms = torch.cat(
        [layer.weight.double() * x[:, None], layer.bias.double().expand(20, 8)[..., None]], 2
    )
    up, down = terms.clamp(min=0).sum(2), (-terms).clamp(min=0).sum(2)
    torch.testing.assert_close(sums.terms, up + down, rtol=1e-12, atol=0)
    torch.testing.assert_close(sums.peak, torch.maximum(up, down), rtol=1e-12, atol=0)
    assert bool((sums.peak >= torch.maximum(up, down)).all())


def test_layers_that_compute_their_numbers_are_followed_in_their_dtype():
    torch.manual_seed(0)
    for kind in (layers.Householder, layers.ProjectionPool2d):
        assert not same_in_float64(kind(20))
        model = nn.Sequential(
            nn.Linear(30, 20), kind(20), nn.Linear(20 if kind is layers.Householder else 10, 3)
        )
        model.eval().requires_grad_(False)
        x = torch.rand(6, 30)
        found = sample_errors(model, x, torch.full((6,), 0.1).double(), model(x).argmax(1))
        off = (model(x).double() - found.logits).norm(dim=1)
        assert bool((off <= found.off_logits + found.attacked.amax(1)).all())
        assert 1e-9 < float(found.off_logits.max()) < 1e-4  # of float32, where float64 has 1e-14
        radii = onelip.certify(model, x, level="float").radius
        assert bool((radii <= onelip.certify(model, x).radius).all())
    assert same_in_float64(batch_norm(nn.BatchNorm2d, 4))


class Unknown(layers.Rescale):
    pass


def test_a_class_says_of_itself_that_float64_is_the_same():
    assert same_in_float64(nn.Sequential(nn.Linear(2, 2), layers.Rescale(2.0)))
    assert not onelip.LipschitzModule.same_in_float64


# Edges


def test_overflow_around_a_sample():
    layer = nn.Linear(4, 2, bias=False)
    layer.weight.data.fill_(1e38)
    model, one = nn.Sequential(layer).requires_grad_(False), torch.ones(1, 4)
    with pytest.raises(NonFiniteError, match="may overflow"):
        sample_errors(model, one, torch.zeros(1).double(), torch.zeros(1).long())
    with pytest.raises(NonFiniteError, match="may overflow"):  # by the attack
        sample_errors(model, one * 0.1, torch.ones(1).double(), torch.zeros(1).long())


@pytest.mark.parametrize("scale", [1e-160, 1e150])
def test_scales_of_float64(scale):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(9, 4, dtype=torch.float64)).requires_grad_(False)
    model[0].weight *= scale
    model[0].bias.zero_()
    x = torch.rand(5, 9, dtype=torch.float64)
    found = sample_errors(model, x, torch.zeros(5).double(), model(x).argmax(1))
    assert bool((found.attacked < 1e-13 * scale).all())
    assert bool((found.attacked > 0).all())


def test_an_empty_batch_and_one_sample():
    model = dense(10, 8, 3)
    for count in (0, 1):
        x = torch.rand(count, 10)
        found = sample_errors(model, x, torch.zeros(count).double(), model(x).argmax(1))
        assert found.attacked.shape == (count, 3)
        assert found.logits.shape == (count, 3)


def test_chunks_change_nothing(monkeypatch):
    torch.manual_seed(0)
    model, x = dense(10, 8, 3), torch.rand(7, 10)
    whole = onelip.certify(model, x, level="float").radius
    monkeypatch.setattr(float_level, "_AT_ONCE", 25)
    torch.testing.assert_close(
        onelip.certify(model, x, level="float").radius, whole, rtol=1e-9, atol=0
    )


def test_errors_after_each_part():
    torch.manual_seed(0)
    model, x = dense(10, 8, 3), torch.rand(4, 10)
    radius = torch.full((4,), 0.1, dtype=torch.float64)
    first, sorted_, last = errors_after_parts(model, x, radius)
    assert first.shape == (4,)
    assert bool((first > 0).all())
    torch.testing.assert_close(sorted_, first, rtol=1e-9, atol=0)  # MaxMin rounds nothing
    assert bool((last > first).all())


def test_further_passes_gain_where_rounding_takes_much(monkeypatch):
    """With deep wide layers in float32; the radii stay below those of level real."""
    torch.manual_seed(0)
    model, x = dense(30, *[400] * 9, 3), torch.rand(20, 30)
    real = onelip.certify(model, x).radius
    with_more = onelip.certify(model, x, level="float").radius
    monkeypatch.setattr(float_level, "_GAP", 1.0)
    once = onelip.certify(model, x, level="float").radius
    assert bool((once <= with_more).all())
    assert bool((with_more <= real).all())
    assert float(with_more.sum()) > float(once.sum())
