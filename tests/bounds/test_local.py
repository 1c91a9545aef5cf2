"""Local bounds against sampled Jacobians, enumerated linear pieces, and attacks on the radii."""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip import certify
from onelip.bounds import Best, LipLT, LipSDP, Local, Product
from onelip.bounds.neighbourhood.dense_layers import layers
from onelip.bounds.neighbourhood.whole_balls import WholeBalls
from onelip.chains import (
    Block,
    Chain,
    Convolution,
    Dense,
    Elementwise,
    GroupSorting,
    Opaque,
    Reshape,
    Scale,
    Sum,
    composed,
    identity,
)
from onelip.errors import NonFiniteError, NotApplicableError, UsageError
from onelip.estimates import activation_patterns
from onelip.layers import Abs, GroupSort, MaxMin, ScaledMaxPool2d
from onelip.lipschitz import lipschitz_bound
from onelip.reading import read

ONE = torch.ones((), dtype=torch.float64)
OWN = Local(cap=Product())  # the cap of a default Local would hide a bound that is too small


def maps(*sizes: int) -> list[Dense]:
    return [
        Dense(torch.randn(m, n).double() / n**0.5, torch.randn(m).double() / 2)
        for n, m in itertools.pairwise(sizes)
    ]


def plain(*sizes: int, activation: nn.Module | None = None) -> Chain:
    *inner, last = maps(*sizes)
    kind = Elementwise.of(activation or nn.ReLU())
    return Chain(tuple(Block(linear, kind) for linear in inner), last)


def sorting(*sizes: int, module: nn.Module) -> Chain:
    *inner, last = maps(*sizes)
    return Chain(tuple(Block(linear, GroupSorting(module, 2)) for linear in inner), last)


def prelu(*sizes: int) -> Chain:
    *inner, last = maps(*sizes)
    modules = [nn.PReLU(size) for size in sizes[1:-1]]
    for module in modules:
        module.weight.data = torch.randn(len(module.weight)) / 2
    pairs = zip(inner, modules, strict=True)
    return Chain(tuple(Block(linear, Elementwise.of(module)) for linear, module in pairs), last)


def residual(*sizes: int) -> Chain:
    width = sizes[0]
    skips = Scale((width,), torch.tensor(0.9).double()), maps(width, width)[0]
    blocks = [
        Block(*maps(width, 7), Elementwise.of(nn.ReLU()), *maps(7, width), skip) for skip in skips
    ]
    return Chain(tuple(blocks), *maps(width, sizes[-1]))


def convolutional(*sizes: int) -> Chain:
    image = Reshape((sizes[0],), (1, 1, sizes[0]))
    kernel = torch.randn(2, 1, 1, 3).double()
    first = Convolution((1, 1, sizes[0]), kernel, torch.randn(2).double() / 2, padding=(0, 1))
    pooled = Scale(first.outputs, torch.rand(2, 1, 1).double(), torch.randn(2, 1, 1).double())
    flat = Reshape(first.outputs, (2 * sizes[0],))
    return Chain(
        (
            Block(composed([image, first]), Elementwise.of(nn.ReLU())),
            Block(composed([pooled, flat, *maps(2 * sizes[0], 6)]), Elementwise.of(nn.ReLU())),
        ),
        *maps(6, sizes[-1]),
    )


def pooling(*sizes: int, module: nn.Module) -> Chain:
    """A convolution, a ReLU, maxima over windows, and two dense layers."""
    image = Reshape((sizes[0],), (1, 2, sizes[0] // 2))
    kernel, bias = torch.randn(2, 1, 3, 3).double() / 2, torch.randn(2).double() / 2
    first = Convolution(image.outputs, kernel, bias, padding=(1, 1))
    shape = tuple(module(torch.zeros(1, *first.outputs)).shape[1:])
    constant = float(lipschitz_bound(module))
    pool = Block(Scale(first.outputs, ONE), Opaque(module, constant, shape))
    flat = Reshape(shape, (math.prod(shape),))
    return Chain(
        (
            Block(composed([image, first]), Elementwise.of(nn.ReLU())),
            pool,
            Block(composed([flat, *maps(math.prod(shape), 6)]), Elementwise.of(nn.ReLU())),
        ),
        *maps(6, sizes[-1]),
    )


def branching(*sizes: int) -> Chain:
    n, m, k = sizes[0], sizes[1], sizes[-1]
    both = Sum((maps(n, m)[0], composed(maps(n, 3, m))))
    inner = composed([*maps(n, n), both, Scale((m,), torch.rand(m).double() + 0.5)])
    return Chain((Block(inner, Elementwise.of(nn.ReLU())),), Sum((maps(m, k)[0], maps(m, k)[0])))


NETWORKS: dict[str, Callable[..., Chain]] = {
    "relu": plain,
    "leaky": lambda *s: plain(*s, activation=nn.LeakyReLU(0.2)),
    "negative-leaky": lambda *s: plain(*s, activation=nn.LeakyReLU(-1.5)),
    "prelu": prelu,
    "hardtanh": lambda *s: plain(*s, activation=nn.Hardtanh(-0.5, 0.7)),
    "softshrink": lambda *s: plain(*s, activation=nn.Softshrink(0.3)),
    "tanh": lambda *s: plain(*s, activation=nn.Tanh()),
    "sigmoid": lambda *s: plain(*s, activation=nn.Sigmoid()),
    "gelu": lambda *s: plain(*s, activation=nn.GELU()),
    "softplus": lambda *s: plain(*s, activation=nn.Softplus()),
    "identity": lambda *s: plain(*s, activation=nn.Identity()),
    "absolute": lambda *s: Chain(
        tuple(Block(m, Elementwise(Abs(), -ONE, ONE)) for m in maps(*s[:-1])),
        *maps(*s[-2:]),
    ),
    "max-min": lambda *s: sorting(*s, module=MaxMin()),
    "group-sort": lambda *s: sorting(*s, module=GroupSort(2)),
    "residual": residual,
    "max-pool": lambda *s: pooling(*s, module=nn.MaxPool2d(2)),
    "max-pool, overlapping": lambda *s: pooling(*s, module=nn.MaxPool2d(2, 1, padding=1)),
    "max-pool, scaled": lambda *s: pooling(*s, module=ScaledMaxPool2d(2, 1)),
    "branching": branching,
    "convolutional": convolutional,
}


def jacobians(chain: Chain, points: Tensor) -> Tensor:
    """``(batch, outputs, inputs)``, by reverse mode."""
    exact = chain.exact()
    single = torch.func.jacrev(lambda x: exact.forward(x).sum(0))  # samples do not meet
    return single(points).movedim(1, 0)


def in_ball(x: Tensor, radius: float, count: int) -> Tensor:
    """Points of the ball around each input, half of them on its surface: ``(batch, count, n)``."""
    towards = F.normalize(torch.randn(len(x), count, *x.shape[1:]).double(), dim=2)
    lengths = torch.rand(len(x), count, 1).double() ** (1 / x.shape[1])
    lengths[:, ::2] = 1
    return x[:, None] + radius * lengths * towards


def attained(chain: Chain, x: Tensor, radius: float, count: int = 60) -> Tensor:
    """The largest Jacobian and the largest quotient that sampling finds in each ball."""
    points = in_ball(x, radius, count)
    norms = torch.linalg.matrix_norm(jacobians(chain, points.flatten(0, 1)), 2)
    y, z = points, points.roll(1, 1)
    values = [chain.exact().forward(p.flatten(0, 1)).unflatten(0, p.shape[:2]) for p in (y, z)]
    quotients = (values[0] - values[1]).norm(dim=2) / (y - z).norm(dim=2).clamp_min(1e-3 * radius)
    return torch.maximum(norms.unflatten(0, (len(x), count)).amax(1), quotients.amax(1))


def test_never_below_what_sampling_finds(each):
    for make, radius in each(itertools.product(NETWORKS.values(), [0.1, 3.0])):
        for _ in range(1):
            chain, x = make(4, 8, 6, 3), torch.randn(12, 4).double()
            bound, found = OWN.around(chain, x, radius), attained(chain, x, radius)
            assert (bound >= found * (1 - 1e-9)).all()
            assert (bound <= Product().bound(chain)).all()


def test_without_a_radius_it_is_the_norm_of_the_jacobian(each):
    for make in each(NETWORKS.values()):
        if make in (NETWORKS["gelu"], NETWORKS["softplus"]):
            continue  # slopes of these are not followed
        chain, x = make(4, 8, 6, 3), torch.randn(5, 4).double()
        exact = torch.linalg.matrix_norm(jacobians(chain, x), 2)
        for radius in (0.0, 1e-9):
            bound = OWN.around(chain, x, radius)
            assert (bound >= exact * (1 - 1e-12)).all()
            torch.testing.assert_close(bound, exact, rtol=1e-5, atol=1e-12)


@pytest.mark.parametrize("sizes", [(2, 5, 1), (2, 4, 4, 2), (3, 6, 3)], ids=str)
@pytest.mark.parametrize("radius", [0.1, 0.5, 2.0])
def test_not_below_the_largest_linear_piece_in_the_ball(sizes, radius):
    for _ in range(4):
        chain, x = plain(*sizes), torch.randn(1, sizes[0]).double()
        side = radius / math.sqrt(sizes[0])
        exact = activation_patterns(chain, box=(x[0] - side, x[0] + side))
        assert float(OWN.around(chain, x, radius)) >= float(exact) * (1 - 1e-9)


def test_single_inputs_and_one_hidden_layer():
    """All slopes in the interval, written down."""
    for _ in range(60):
        chain, x, radius = plain(1, 4, 1), torch.randn(1, 1).double(), float(torch.rand(()))
        (inner,), last = (block.inner for block in chain.blocks), chain.last
        kinks = (-inner.bias / inner.weight[:, 0]).clamp(x[0] - radius, x[0] + radius)
        ends = torch.cat([kinks, x[0] - radius, x[0] + radius]).sort().values
        middles = ((ends[1:] + ends[:-1]) / 2)[:, None]
        slopes = ((middles @ inner.weight.T + inner.bias > 0) * last.weight) @ inner.weight
        assert float(OWN.around(chain, x, radius)) >= float(slopes.abs().max()) * (1 - 1e-12)


def test_a_ball_without_switching_units_is_linear():
    chain = Chain(
        (Block(Dense(torch.eye(3), torch.tensor([5.0, -5.0, 5.0])), Elementwise.of(nn.ReLU())),),
        Dense(torch.tensor([[3.0, 7.0, 4.0]])),
    )
    torch.testing.assert_close(
        Local().around(chain, torch.zeros(1, 3), 4.9), torch.tensor([5.0]).double()
    )
    assert float(Local().around(chain, torch.zeros(1, 3), 5.1)) > 8  # the dead unit comes alive


def test_a_network_of_dead_units_is_constant():
    chain = plain(3, 6, 6, 2)
    chain.blocks[1].inner.bias.sub_(100)
    assert (Local().around(chain, torch.randn(4, 3), 1.0) < 1e-100).all()
    assert float(LipLT().bound(chain)) > 0.1


def test_mostly_grows_with_the_ball():
    chain, x = plain(6, 20, 20, 4), torch.randn(20, 6).double()
    bounds = torch.stack([OWN.around(chain, x, r) for r in (0, 1e-3, 1e-2, 0.03, 0.1, 0.3, 1, 10)])
    assert (bounds[1:] >= 0.9 * bounds[:-1]).all()
    assert (bounds.mean(1).diff() >= 0).all()
    assert (bounds[-1] > 2 * bounds[0]).all()


def test_a_radius_for_each_input():
    chain, x = plain(3, 8, 8, 2), torch.randn(3, 3)
    radii = torch.tensor([0.1, 0.0, 2.0])
    together = Local().around(chain, x, radii)
    alone = torch.cat([Local().around(chain, x[i : i + 1], float(radii[i])) for i in range(3)])
    torch.testing.assert_close(together, alone, rtol=1e-6, atol=0)


def test_units_exactly_at_zero_count_as_switching():
    """At 0 torch's gradient is 0, and the slope to the right is 1."""
    chain = Chain((Block(Dense(torch.eye(2)), Elementwise.of(nn.ReLU())),), Dense(torch.eye(2)))
    assert (Local().around(chain, torch.zeros(1, 2), 0.0) >= 1).all()
    assert (Local().around(chain, torch.tensor([[1.0, -1.0]]), 1.0) >= 1).all()


def test_rounding_of_the_forward_pass_cannot_hide_a_unit():
    """In float64 the sum is -0.5 or 0.5 by the order of its terms; it is 0.5."""
    x = torch.tensor([[1e16, 1.0, -1e16], [1.0, 1e16, -1e16], [1e16, -1e16, 1.0]]).double()
    layer = Block(Dense(torch.ones(1, 3), torch.tensor([-0.5])), Elementwise.of(nn.ReLU()))
    assert (Local().around(Chain((layer,), Dense(torch.ones(1, 1))), x, 0.0) >= math.sqrt(3)).all()


def test_rounding_of_earlier_layers_is_carried_on():
    """The same two layers before the unit, which itself sees small numbers only."""
    x = torch.tensor([[1e16, 1.0, -1e16], [1.0, 1e16, -1e16], [1e16, -1e16, 1.0]]).double()
    one, linear = torch.ones(1, 1), Elementwise.of(nn.Identity())
    blocks = (
        Block(Dense(torch.ones(1, 3)), linear),
        Block(Dense(one), linear),
        Block(Dense(one, torch.tensor([-0.5])), Elementwise.of(nn.ReLU())),
    )
    assert (Local().around(Chain(blocks, Dense(one)), x, 0.0) >= math.sqrt(3)).all()


def test_linear_networks_and_single_units():
    weight = torch.randn(3, 5)
    norm = torch.linalg.matrix_norm(weight.double(), 2)
    bound = Local().around(Chain((), Dense(weight)), torch.randn(2, 5), 1.0)
    torch.testing.assert_close(bound, norm.expand(2), rtol=1e-8, atol=0)
    assert (Local().around(plain(1, 1, 1), torch.randn(9, 1), 0.5) >= 0).all()


def test_zero_tiny_and_huge_weights():
    x = torch.ones(2, 2).double()
    for scale, least in ((0.0, 0.0), (1e-200, 0.0), (1e-100, 1e-200), (1e100, 1e200)):
        layer = Block(Dense(scale * torch.eye(2).double()), Elementwise.of(nn.ReLU()))
        bound = Local().around(Chain((layer,), Dense(scale * torch.eye(2).double())), x, 0.1)
        assert (bound >= least).all()
        assert (bound <= 1.001 * least + 1e-140).all()
    layer = Block(Dense(1e200 * torch.eye(2).double()), Elementwise.of(nn.ReLU()))
    with pytest.raises(NonFiniteError):
        Local().around(Chain((layer,), Dense(1e200 * torch.eye(2).double())), x, 0.1)


def test_float32_chains_are_taken_as_they_are():
    wide = plain(4, 8, 8, 3)
    layers = [
        Block(Dense(b.inner.weight.float(), b.inner.bias.float()), b.nonlinearity)
        for b in wide.blocks
    ]
    narrow = Chain(tuple(layers), Dense(wide.last.weight.float()))
    x = torch.randn(5, 4)
    bound = Local().around(narrow, x, 0.1)
    assert bound.dtype == torch.float64
    assert (bound >= attained(narrow, x.double(), 0.1) * (1 - 1e-9)).all()


def test_an_empty_batch():
    assert Local().around(plain(3, 4, 2), torch.zeros(0, 3), 0.1).shape == (0,)
    assert Local().pairwise(plain(3, 4, 2), torch.zeros(0, 3), 0.1).shape == (0, 2)
    assert Local((0.1,)).radius(plain(3, 4, 2), torch.zeros(0, 3)).radius.shape == (0,)


@pytest.mark.parametrize("name", ["relu", "max-min", "residual", "tanh"])
def test_differences_of_logits(name):
    for radius in (0.01, 0.3, 3.0):
        chain, x = NETWORKS[name](4, 8, 6, 3), torch.randn(5, 4).double()
        slopes = OWN.pairwise(chain, x, radius)
        own = chain.exact().forward(x).argmax(1)
        points = in_ball(x, radius, 60)
        rows = jacobians(chain, points.flatten(0, 1)).unflatten(0, (5, 60))
        differences = rows[torch.arange(5), :, own][:, :, None] - rows
        assert (slopes >= differences.norm(dim=3).amax(1) * (1 - 1e-9)).all()
        assert (slopes <= Product().logit_bounds(chain).pairwise[own]).all()
        assert (slopes.gather(1, own[:, None]) == 0).all()


def from_centre(chain: Chain, x: Tensor, radius: float, count: int = 60) -> Tensor:
    """The steepest falls of margins from the centre that sampling and ascent find."""
    exact = chain.exact()
    own = exact.forward(x).argmax(1)

    def margins(points: Tensor) -> Tensor:
        logits = exact.forward(points.flatten(0, 1)).unflatten(0, points.shape[:2])
        return logits.gather(2, own[:, None, None].expand(-1, points.shape[1], 1)) - logits

    centre, found = margins(x[:, None]), torch.zeros(len(x), 1).double()
    points = in_ball(x, radius, count)
    for _ in range(8):
        points.requires_grad_()
        moved = points - x[:, None]
        slopes = (centre - margins(points)) / moved.norm(dim=2, keepdim=True)
        found = torch.maximum(found, slopes.detach().amax(1))
        rival = torch.arange(count) % slopes.shape[2]  # each point works on one difference
        (gradient,) = torch.autograd.grad(slopes[:, torch.arange(count), rival].sum(), points)
        moved = moved.detach() + 0.3 * radius * F.normalize(gradient, dim=2)
        lengths = moved.norm(dim=2, keepdim=True).clamp_min(1e-3 * radius)
        points = x[:, None] + moved * (radius / lengths).clamp_max(1)
    return found


def test_from_the_centre_no_margin_falls_faster(each):
    shares = []
    for make, radius in each(itertools.product(NETWORKS.values(), [0.1, 2.0])):
        for _ in range(1):
            chain, x = make(4, 8, 6, 3), torch.randn(12, 4).double()
            slopes = OWN.from_centre(chain, x, radius)
            assert (slopes >= from_centre(chain, x, radius) * (1 - 1e-9)).all()
            shares.append(float(slopes.sum() / OWN.pairwise(chain, x, radius).sum()))
    assert sum(shares) < 0.95 * len(shares)  # narrower slopes, which mostly prove less


def test_no_margin_falls_by_more_than_is_proved_of_a_whole_ball(each):
    """Also where the constants of the layers are far from tight, and nothing asks for it."""
    proved = 0
    for make, radius in each(itertools.product(NETWORKS.values(), [0.1, 2.0])):
        chain, x = make(4, 8, 6, 3), torch.randn(4, 4).double()
        logits = chain.exact().forward(x)
        own = logits.argmax(1)
        slopes = Product().logit_bounds(chain).pairwise[own]
        wanted = 0.99 * radius * slopes  # whatever is proved to be below it is returned
        lengths = torch.full((4,), radius).double()
        falls = WholeBalls(*layers(chain)).falls(x, lengths, own, wanted, slopes)
        known = torch.isfinite(falls).scatter(1, own[:, None], False)
        found = radius * from_centre(chain, x, radius)
        assert (falls >= found * (1 - 1e-9))[known].all()
        proved += int(known.sum())
    assert proved > 100


def test_any_two_points_and_the_centre_are_two_notions():
    """A ReLU at -0.5: from there to 1.5 it rises by 1.5 on a way of 2, though its slope gets 1."""
    layer = Block(Dense(torch.ones(1, 1)), Elementwise.of(nn.ReLU()))
    chain = Chain((layer,), Dense(torch.tensor([[0.0], [1.0]]), torch.tensor([0.1, 0.0])))
    x = torch.tensor([[-0.5]]).double()
    assert float(OWN.around(chain, x, 2.0)) == pytest.approx(1.0)
    assert float(OWN.pairwise(chain, x, 2.0).max()) == pytest.approx(1.0)
    assert float(OWN.from_centre(chain, x, 2.0).max()) == pytest.approx(0.75, rel=0.02)
    # With the other sign the margin rises only, from 0.1: nothing falls, and everything is
    # certified, while two points of the ball still differ.
    chain = Chain((layer,), Dense(torch.tensor([[0.0], [-1.0]]), torch.tensor([0.1, 0.0])))
    assert float(OWN.pairwise(chain, x, 2.0).max()) == pytest.approx(1.0)
    assert float(OWN.from_centre(chain, x, 2.0).max()) < 0.05


def test_a_local_bound_is_never_above_the_global_one_that_caps_it():
    for make in (plain, NETWORKS["max-min"], residual):
        chain, x = make(4, 8, 6, 3), torch.randn(3, 4).double()
        for cap in (LipLT(), Product(), LipSDP() if make is plain else Best(methods=("liplt",))):
            method, bound = Local(cap=cap), cap.bound(chain)
            assert (method.around(chain, x, 9.0) <= bound * (1 + 1e-12)).all()
            pairs = cap.logit_bounds(chain).pairwise
            assert (method.pairwise(chain, x, 9.0) <= pairs.amax() * (1 + 1e-12)).all()
            assert (method.from_centre(chain, x, 9.0) <= pairs.amax() * (1 + 1e-12)).all()
        assert (Local().around(chain, x, 9.0) <= LipLT().bound(chain)).all()
        if make is plain:
            assert (Local().around(chain, x, 9.0) <= LipSDP().bound(chain)).all()


def test_settings_that_make_no_sense_are_refused():
    for settings in ({"units": -1}, {"tries": -1}):
        with pytest.raises(UsageError, match="0 or more"):
            Local(**settings)
    for cap in (Local(), "liplt", 3.0):
        with pytest.raises(UsageError, match="no global method"):
            Local(cap=cap)


@pytest.fixture(scope="module")
def trained():
    """A small network that tells three blobs apart, and points of them."""
    torch.manual_seed(1)
    centres = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]).double()
    labels = torch.arange(90) % 3
    x = centres[labels] + 0.25 * torch.randn(90, 3).double()
    model = nn.Sequential(
        nn.Linear(3, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )
    model = model.double()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for _ in range(30):
        optimizer.zero_grad()
        F.cross_entropy(model(x), labels).backward()
        optimizer.step()
    parts = [Dense(part.weight, part.bias) for part in model if isinstance(part, nn.Linear)]
    blocks = tuple(Block(part, Elementwise.of(nn.ReLU())) for part in parts[:-1])
    return Chain(blocks, parts[-1]), x, labels


RADII = [0.05, 0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5]


def attacked(chain: Chain, x: Tensor, prediction: Tensor, radius: Tensor) -> Tensor:
    """Which predictions change within the radii, by projected gradient ascent from 20 starts."""
    exact, fooled = chain.exact(), torch.zeros(len(x), dtype=torch.bool)
    for _ in range(20):
        step = F.normalize(torch.randn_like(x), dim=1) * radius[:, None]
        for _ in range(20):
            step.requires_grad_()
            logits = exact.forward(x + step)
            own = logits.gather(1, prediction[:, None])
            rival = logits.scatter(1, prediction[:, None], -math.inf).amax(1)
            (gradient,) = torch.autograd.grad((rival - own[:, 0]).sum(), step)
            step = step.detach() + 0.3 * radius[:, None] * F.normalize(gradient, dim=1)
            step = step * (radius / step.norm(dim=1).clamp_min(1e-300)).clamp_max(1)[:, None]
            fooled |= exact.forward(x + step).argmax(1) != prediction
    return fooled


def test_no_attack_succeeds_inside_a_certified_radius(trained):
    chain, x, labels = trained
    prediction, radius = Local(tuple(RADII)).radius(chain, x)
    assert (prediction == labels).double().mean() > 0.9
    assert float(radius.mean()) > 0.1
    inside = radius * (1 - 1e-9)
    assert not attacked(chain, x, prediction, inside).any()
    assert attacked(chain, x, prediction, radius + 0.3).double().mean() > 0.5  # the attack works


def test_no_attack_breaks_a_radius_of_any_kind_of_network(each):
    """Of random networks, whose radii are short: the attack comes close to them."""
    for make in each((plain, NETWORKS["max-min"], residual, NETWORKS["max-pool"])):
        chain, x = make(4, 8, 6, 3), torch.randn(10, 4).double()
        prediction, radius = OWN.radius(chain, x)
        assert (radius > 0).all()
        assert not attacked(chain, x, prediction, radius * (1 - 1e-9)).any()
        assert attacked(chain, x, prediction, 2 * radius).double().mean() > 0.3


def test_convolutions_and_max_pooling_of_torch():
    """As a module, with the rounding of single precision counted."""
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(2, 2, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 1),
        nn.Flatten(),
        nn.Linear(2, 3),
    ).eval()
    x = torch.rand(3, 1, 6, 6)
    whole = certify(model, x, method=LipLT(), level="float")
    found = certify(model, x, method=Local(tries=3, cap=LipLT()), level="float")
    assert float((found.radius / whole.radius).mean()) > 1.2
    chain = read(model, (1, 6, 6))
    first, *others = chain.blocks
    first = replace(first, inner=composed([Reshape((36,), (1, 6, 6)), first.inner]))
    flat, points = Chain((first, *others), chain.last), x.double().flatten(1)
    assert not attacked(flat, points, found.prediction, found.radius * (1 - 1e-6)).any()


def test_more_balls_never_certify_less(trained):
    chain, x, _ = trained
    before = Local(cap=LipLT(), tries=0).radius(chain, x).radius
    torch.testing.assert_close(before, Local(cap=LipLT(), tries=0, units=0).radius(chain, x).radius)
    for tries in (1, 2, 6):
        found = Local(cap=LipLT(), tries=tries).radius(chain, x).radius
        assert (found >= before).all()
        before = found
    alone = Local(cap=LipLT(), units=0).radius(chain, x).radius
    assert float(before.mean()) > float(alone.mean())  # multipliers gain


def test_radii_are_larger_than_those_of_the_global_bound(trained):
    chain, x, _ = trained
    prediction, radius = Local(tuple(RADII)).radius(chain, x)
    logits = chain.exact().forward(x)
    margins = logits.gather(1, prediction[:, None]) - logits
    whole = (
        (margins / LipLT().logit_bounds(chain).pairwise[prediction]).nan_to_num(math.inf).amin(1)
    )
    whole = whole.clamp_max(max(RADII))
    assert (radius >= whole * (1 - 1e-9)).all()
    assert float(radius.mean()) > 1.05 * float(whole.mean())


def test_wrong_predictions_and_ties_get_no_radius(trained):
    chain, x, labels = trained
    wrong = Local((0.1,)).radius(chain, x, labels=(labels + 1) % 3)
    assert (wrong.radius[wrong.prediction == labels] == 0).all()
    tie = Chain((), Dense(torch.ones(2, 2)))
    assert float(Local((1.0,)).radius(tie, torch.ones(1, 2)).radius) == 0
    constant = Chain((), Dense(torch.zeros(2, 2), torch.tensor([1.0, 0.0])))
    assert float(Local((0.5, 2.0)).radius(constant, torch.ones(1, 2)).radius) == math.inf


def test_margins_that_rounding_could_make_are_no_margins():
    """Equal logits in exact arithmetic, which float64 sums in different orders."""
    x, apart = torch.ones(1, 40).double(), 0
    for _ in range(30):
        numbers = torch.rand(40, dtype=torch.float64)
        chain = Chain((), Dense(torch.stack([numbers, numbers[torch.randperm(40)]])))
        apart += int(chain.forward(x).diff() != 0)
        assert float(Local((1e-6,)).radius(chain, x).radius) == 0
    assert apart > 5


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_inputs_that_are_no_numbers_are_refused(bad):
    chain, x = plain(3, 4, 2), torch.zeros(2, 3)
    x[1, 1] = bad
    for query in (Local().around, Local().pairwise):
        with pytest.raises(UsageError, match="infinite or NaN"):
            query(chain, x, 0.1)
    with pytest.raises(UsageError, match="infinite or NaN"):
        Local((0.1,)).radius(chain, x)


@pytest.mark.parametrize("radius", [-0.1, math.nan, math.inf])
def test_radii_that_are_no_lengths_are_refused(radius):
    with pytest.raises(UsageError, match="finite length"):
        Local().around(plain(3, 4, 2), torch.zeros(1, 3), radius)


def test_what_does_not_fit_is_refused():
    chain = plain(3, 4, 2)
    with pytest.raises(UsageError, match="shape"):
        Local().around(chain, torch.zeros(1, 4), 0.1)
    with pytest.raises(UsageError, match="two or more logits"):
        Local().pairwise(plain(3, 4, 1), torch.zeros(1, 3), 0.1)
    with pytest.raises(UsageError, match="radii to try"):
        Local(()).radius(chain, torch.zeros(1, 3))
    chain.blocks[0].inner.weight[0, 0] = math.nan
    with pytest.raises(NonFiniteError):
        Local().around(chain, torch.zeros(1, 3), 0.1)


def test_what_is_not_covered_is_refused():
    soft = Opaque(nn.Softmax(1), 1.0, (1, 4, 4))
    image = Convolution((1, 4, 4), torch.randn(1, 1, 3, 3), padding=(1, 1))
    chain = Chain((Block(image, soft),), Reshape((1, 4, 4), (16,)))
    with pytest.raises(NotApplicableError, match="of Softmax no slopes"):
        Local().around(chain, torch.zeros(1, 1, 4, 4), 0.1)
    pool = Opaque(nn.MaxPool2d(3, 1, padding=1), 3.0, (1, 4, 4))
    chain = Chain((Block(image, pool, skip=identity((1, 4, 4))),), Reshape((1, 4, 4), (16,)))
    with pytest.raises(NotApplicableError, match="inside a skip connection"):
        Local().around(chain, torch.zeros(1, 1, 4, 4), 0.1)
    many = Opaque(nn.MaxPool2d(2), 1.0, (1, 64, 64))
    chain = Chain((Block(identity((1, 128, 128)), many),), Reshape((1, 64, 64), (64**2,)))
    with pytest.raises(NotApplicableError, match="too many"):
        Local().around(chain, torch.zeros(1, 1, 128, 128), 0.1)
    large = Convolution((3, 64, 64), torch.randn(3, 3, 3, 3), padding=(1, 1))
    chain = Chain((Block(large, Elementwise.of(nn.ReLU())),), Reshape(large.outputs, (3 * 64**2,)))
    with pytest.raises(NotApplicableError, match="too large"):
        Local().around(chain, torch.zeros(1, 3, 64, 64), 0.1)
    triples = Block(*maps(3, 6), GroupSorting(GroupSort(3), 3))
    with pytest.raises(NotApplicableError, match="of GroupSort no slopes"):
        Local().around(Chain((triples,), *maps(6, 2)), torch.zeros(1, 3), 1.0)
