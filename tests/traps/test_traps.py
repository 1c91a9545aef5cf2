"""Known errors of the field: the naive way fails a check that ours passes.

The numbers are those of the project's list of traps, as are the situations; the rest of the list
concerns methods that are not here yet.
"""

import copy
import math
from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import onelip
from onelip import bounds, certify, layers, norms
from onelip.bounds.head_curvature import Curvature, TwoLayers
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.norms import convolutions
from onelip.testing import jacobian_norm
from onelip.transport import exact_distance, judge
from tests.bounds.semidefinite.programmes import coupled
from tests.cases import LAYERS
from tests.networks import chain_of
from tests.oracles import materialised, sigma_max


def power_method(matrix: torch.Tensor, steps: int) -> float:
    v = torch.ones(matrix.shape[1], dtype=matrix.dtype)
    for _ in range(steps):
        v = F.normalize(matrix.T @ (matrix @ v), dim=0)
    return float((matrix @ v).norm())


# 1: power iteration as an upper bound


def test_trap_1_power_iteration_is_below_the_norm():
    matrix = torch.randn(64, 64, dtype=torch.float64)
    truth = sigma_max(matrix)
    assert power_method(matrix, 3) < 0.97 * truth
    assert truth <= float(norms.dense(matrix)) <= truth * (1 + 1e-8)


def test_trap_1_a_convex_potential_block_stretches():
    layer = layers.ConvexPotentialLinear(40, 40).double().eval()
    layer.weight.data = torch.randn(40, 40, dtype=torch.float64)
    layer.bias.data.fill_(1e3)  # every unit active: the block is linear
    layer.direction = torch.randn(40, dtype=torch.float64)
    layer.power_step(3)
    x = torch.randn(40, dtype=torch.float64)
    true = float(jacobian_norm(layer, x))
    assert true > 1.01  # what counts as 1-Lipschitz elsewhere
    assert true <= float(onelip.lipschitz_bound(layer)) <= true * (1 + 1e-8)
    exported = onelip.export(layer)
    assert float(jacobian_norm(exported, x)) <= 1 + 1e-12
    assert float(onelip.lipschitz_bound(exported)) == 1


def test_trap_1_power_iterations_of_curvature_under_estimate_most_pairs():
    """As published: 20 power steps, taken as an upper bound of the curvature of an MLP head."""
    torch.manual_seed(0)
    inner, outer = nn.Linear(128, 512), nn.Linear(512, 10)
    curvature, below, smallest = Curvature(TwoLayers.of(inner, nn.Softplus(), outer)), 0, 1.0
    weight, rows = inner.weight.detach().double(), outer.weight.detach().double()
    first, second = torch.triu_indices(10, 10, 1)
    for own, rival in zip(first, second, strict=True):
        bend = (rows[rival] - rows[own]).clamp_min(0) / 4
        matrix = weight.T @ (bend[:, None] * weight)
        guess, truth = power_method(matrix, 20), sigma_max(matrix)
        below += guess < truth * (1 - 1e-4)
        smallest = min(smallest, guess / truth)
        proved = float(curvature(own[None], rival[None]))
        assert truth * (1 - 1e-13) <= proved <= truth * (1 + 1e-8)
    assert below > 0.7 * len(first)
    assert smallest < 0.97


# 2: an epsilon on the wrong side of a division


def test_trap_2_sll_with_an_epsilon_that_lengthens():
    """The sum is over q, the division by q + 1e-6: for small q the step comes out too long."""
    weight, q = torch.randn(6, 4, dtype=torch.float64), torch.full((6,), 1e-7, dtype=torch.float64)
    naive = 1 / ((weight @ weight.T).abs() @ q / (q + 1e-6))
    every_unit_active = torch.eye(4) - 2 * weight.T @ (naive[:, None] * weight)
    assert sigma_max(every_unit_active) > 2
    layer = layers.SLLLinear(4, 6).double().eval()
    layer.weight.data, layer.log_q.data = weight, q.log()
    layer.bias.data.fill_(1e3)
    assert float(jacobian_norm(layer, torch.rand(4, dtype=torch.float64))) <= 1 + 1e-12
    assert float(onelip.lipschitz_bound(layer)) <= 1 + 1e-9


# 3: the input is scaled, the radius is not


@pytest.mark.parametrize("naive", ["no scaling", "max(std)"])
def test_trap_3_scaling_of_the_input(naive):
    std = [0.5, 0.1]
    head = nn.Linear(2, 2)
    head.weight.data, head.bias.data = torch.tensor([[0.0, 1.0], [0.0, -1.0]]), torch.zeros(2)
    model = nn.Sequential(layers.Normalize([0.5, 0.5], std), head).eval()
    x = torch.tensor([[0.5, 0.6]])
    logits = model(x)[0].detach()
    margin = float(logits[0] - logits[1])
    in_pixels = {"no scaling": margin / 2, "max(std)": margin / 2 * max(std)}[naive]
    ours = certify(model, x).radius.item()

    def prediction_at(radius: float) -> int:
        return int(model(x - torch.tensor([[0.0, radius]])).argmax())

    assert prediction_at(0.99 * in_pixels) == 1  # flipped inside of the naive radius
    assert prediction_at(0.999 * ours) == 0
    assert prediction_at(1.001 * ours) == 1  # ours is the exact distance here


# 4: only the largest logits are certified


def test_trap_4_the_nearest_rival_is_not_among_the_ten_largest_logits():
    """Radii over the top ten of 100 certify 0.707 where the prediction changes at 0.56."""
    ways = F.normalize(torch.randn(99, 16, dtype=torch.float64), dim=1)
    steep = torch.cat([torch.zeros(1, 16).double(), ways[:9], 2 * ways[9:]])
    inner, outer = nn.Linear(16, 32).double(), nn.Linear(32, 100).double()
    inner.weight.data = torch.cat([torch.eye(16), -torch.eye(16)]).double()
    inner.bias.data = torch.full((32,), -0.5).double()  # the input is the middle of the box
    inner.bias.data[16:] = 0.5
    outer.weight.data = torch.cat([steep, -steep], 1)  # softplus(a) - softplus(-a) = a
    outer.bias.data = torch.tensor([1.0] + 9 * [1 - 0.707] + 90 * [1 - 2 * 0.56]).double()
    x = torch.full((1, 16), 0.5, dtype=torch.float64)
    model = nn.Sequential(inner, nn.Softplus(), outer).eval()
    top = model(x)[0].topk(10).indices
    ten = nn.Linear(32, 10).double()
    ten.weight.data, ten.bias.data = outer.weight[top].detach(), outer.bias[top].detach()
    naive = nn.Sequential(inner, nn.Softplus(), ten).eval()
    claimed, ours = (certify(net, x, method="curvature") for net in (naive, model))
    assert float(claimed.radius) == pytest.approx(0.707, rel=1e-4)
    inside = x + 0.5601 * ways[-1]
    assert int(model(inside).argmax()) != int(model(x).argmax())
    assert 0.5599 <= float(ours.radius) <= 0.56
    assert int(ours.head_radii.rival) >= 10


# 5: ties and NaN


def _naive_radius(logits: torch.Tensor, bound: float) -> float:
    """Masks every logit that equals the top one."""
    top = logits.max()
    rivals = logits.masked_fill(logits == top, -math.inf)
    return float((top - rivals.max()) / (math.sqrt(2) * bound))


def test_trap_5_ties():
    head = nn.Linear(2, 3).eval()
    head.weight.data, head.bias.data = torch.eye(3)[:, :2], torch.zeros(3)
    x = torch.tensor([[0.5, 0.5]])
    assert _naive_radius(head(x)[0].detach(), 1) > 0.3
    assert certify(head, x).radius.item() == 0


def test_trap_5_nan():
    def naive_robust(margin: float, bound: float, eps: float) -> bool:
        return not margin < eps * bound  # "no attack is known to fit"

    assert not naive_robust(margin=1.0, bound=4.0, eps=0.5)
    assert naive_robust(margin=1.0, bound=math.nan, eps=0.5)
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)).eval()
    model[0].weight.data[0, 0] = math.nan
    with pytest.raises(NonFiniteError, match="infinite or NaN"):
        certify(model, torch.rand(1, 2))


# 6: what is not known counts as 1


class _Tripled(nn.Module):
    def forward(self, x):
        return 3 * x


def _naive_bound(model: nn.Sequential) -> float:
    known = [m for m in model if isinstance(m, nn.Linear)]
    return math.prod(sigma_max(m.weight) for m in known)


def test_trap_6_an_unknown_module():
    model = nn.Sequential(nn.Linear(3, 3), _Tripled()).eval().double()
    x = torch.rand(3, dtype=torch.float64)
    assert _naive_bound(model) < float(jacobian_norm(model, x)) / 2.9
    with pytest.raises(UnboundedModuleError, match="_Tripled"):
        onelip.lipschitz_bound(model)


def test_trap_6_overlapping_max_pooling():
    pool = nn.MaxPool2d(3, stride=2)
    peak = torch.zeros(1, 1, 5, 5)
    peak[0, 0, 2, 2] = 1.0  # in four windows
    stretch = float(pool(peak).norm() / peak.norm())
    assert stretch > 1.73
    assert stretch <= float(onelip.lipschitz_bound(pool)) == 2
    assert float(layers.ScaledMaxPool2d(3, 2)(peak).norm()) <= 1


# 7: two truths for one constant


def test_trap_7_a_network_that_declares_another_constant():
    deel = pytest.importorskip("deel.torchlip")
    model = deel.Sequential(deel.SpectralLinear(4, 4, k_coef_lip=2.0), k_coef_lip=1.0).eval()
    assert model._coefficient_lip == model[0]._coefficient_lip == 1  # what both declare
    true = float(jacobian_norm(model.double(), torch.randn(4, dtype=torch.float64)))
    assert true == pytest.approx(2, rel=1e-5)
    for ours in (model, onelip.export(model)):
        assert true * (1 - 1e-12) <= float(onelip.lipschitz_bound(ours)) <= true * (1 + 1e-8)


# 8: padding that repeats pixels


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_trap_8_reflect_and_replicate(mode):
    conv = nn.Conv2d(1, 1, 3, padding=1, padding_mode=mode, bias=False).double()
    size, worst = 3, 0.0
    for _ in range(200):
        conv.weight.data = torch.randn(1, 1, 3, 3, dtype=torch.float64)
        with torch.no_grad():
            true = sigma_max(materialised(conv, (1, size, size)))
        circular = float(torch.fft.fft2(conv.weight.detach(), s=(size, size)).abs().max())
        worst = max(worst, true / circular)
        assert float(onelip.lipschitz_bound(conv)) >= true
    assert worst > 1.2
    with pytest.raises(UnboundedModuleError, match="repeats pixels"):
        layers.ConvexPotentialConv2d(1, 1, image_size=3, padding_mode=mode)


# 9: zero padding on the grid of the image


def test_trap_9_zero_padding_on_the_image_grid(monkeypatch):

    monkeypatch.setattr(convolutions, "_WRITTEN_OUT", 0)
    monkeypatch.setattr(convolutions, "_BY_ROWS", 0)
    size, worst = 4, 0.0
    for _ in range(300):
        weight = torch.randn(1, 1, 3, 3, dtype=torch.float64)
        true = sigma_max(
            materialised(lambda x, w=weight: F.conv2d(x, w, padding=1), (1, size, size))
        )
        worst = max(worst, true / float(torch.fft.fft2(weight, s=(size, size)).abs().max()))
        assert float(norms.convolution(weight, image_size=size, padding=1)) >= true * (1 - 1e-14)
    assert worst > 1.01


# 10: groups


def test_trap_10_the_norm_of_groups_is_their_maximum():
    conv = nn.Conv2d(2, 2, 1, groups=2, bias=False)
    conv.weight.data = torch.tensor([1.0, 0.25]).view(2, 1, 1, 1)
    naive = math.prod(float(w.abs()) for w in conv.weight.detach())
    x = torch.zeros(1, 2, 3, 3)
    x[0, 0] = 1.0
    stretch = float(conv(x).detach().norm() / x.norm())
    assert naive == 0.25 < stretch == 1
    assert float(onelip.lipschitz_bound(conv)) == pytest.approx(1, rel=1e-8)
    assert float(onelip.lipschitz_bound(conv)) >= stretch


# 11: mean pooling of non-integer ratio


def test_trap_11_adaptive_average_pooling():
    """From 5 to 3 pixels the windows overlap; scaled as if they were 5/3 wide, they stretch."""
    size, target = 5, 3

    def naive(x):
        return F.adaptive_avg_pool2d(x, target) * (size / target)

    assert sigma_max(materialised(naive, (1, size, size))) > 1.01
    ours = layers.ScaledAvgPool2d(2)
    assert sigma_max(materialised(ours, (1, size, size))) <= 1 + 1e-12
    with pytest.raises(UnboundedModuleError, match="AdaptiveAvgPool2d"):
        onelip.lipschitz_bound(nn.AdaptiveAvgPool2d(target))


# 12: stale weights in eval


class _StaleSigma(nn.Linear):
    """Divides by the norm that it saw in the last forward pass in training."""

    def __init__(self, features):
        super().__init__(features, features, bias=False)
        self.sigma = 1.0

    def forward(self, x):
        if self.training:
            self.sigma = float(torch.linalg.matrix_norm(self.weight, 2))
        return F.linear(x, self.weight / self.sigma)


def _one_step(module: nn.Module) -> None:
    optimizer = torch.optim.SGD(module.parameters(), lr=50.0)
    x = torch.randn(8, 6)
    module.train()
    (module(x) * torch.randn(8, 6)).sum().backward()
    optimizer.step()
    module.eval()


def test_trap_12_a_norm_that_is_one_step_old():
    naive = _StaleSigma(6)
    _one_step(naive)
    assert float(jacobian_norm(naive, torch.rand(6))) > 1.5


@pytest.mark.parametrize(
    "layer",
    [layers.ConvexPotentialLinear(6, 6), layers.UnitNormLinear(6, 6)],
    ids=lambda m: type(m).__name__,
)
def test_trap_12_our_bounds_see_the_weights_of_now(layer):
    layer = copy.deepcopy(layer)
    onelip.lipschitz_bound(layer)
    for _ in range(2):
        _one_step(layer)
        norm = float(jacobian_norm(layer, torch.rand(6)))
        assert norm <= float(onelip.lipschitz_bound(layer)) * (1 + 1e-5)  # float32 evaluation


def test_trap_12_certificates_follow_the_weights():
    head = nn.Linear(2, 2, bias=False).eval()
    head.weight.data = torch.eye(2)
    x = torch.tensor([[1.0, 0.0]])
    before = certify(head, x).radius.item()
    head.weight.data = torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    after = certify(head, x).radius.item()
    assert before == pytest.approx(1 / math.sqrt(2))
    assert after == pytest.approx(1 / math.sqrt(26))


# 13: a parameter born in forward, after the optimizer


class CayleyWithLateScale(nn.Module):
    """As in published code: the scale is made from the first batch's weight."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.register_parameter("scale", None)

    def forward(self, x):
        if self.scale is None:
            self.scale = nn.Parameter(self.weight.detach().norm())
        skew = self.scale * (self.weight - self.weight.T) / self.weight.norm()
        eye = torch.eye(4)
        return x @ torch.linalg.solve(eye + skew, eye - skew).T


def test_trap_13_a_parameter_that_the_optimizer_never_sees():
    layer, x = CayleyWithLateScale(), torch.randn(5, 4)
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    layer(x)
    before = layer.scale.detach().clone()
    layer(x)[:, 0].sum().backward()
    optimizer.step()
    assert layer.scale.grad != 0
    assert layer.scale == before  # and a checkpoint made before holds none


def test_trap_13_no_layer_makes_parameters_in_forward(each):
    for case in each(LAYERS):
        layer = case.build().train()
        before = [(name, id(p)) for name, p in layer.named_parameters()]
        buffers = [name for name, _ in layer.named_buffers()]
        layer(torch.randn(3, *case.input_shape))
        assert [(name, id(p)) for name, p in layer.named_parameters()] == before
        assert [name for name, _ in layer.named_buffers()] == buffers


def test_trap_13_the_scale_of_cayley_is_trained():
    for layer, x in (
        (layers.CayleyLinear(4, 4), torch.randn(5, 4)),
        (layers.CayleyConv2d(2, 2, 3, image_size=4), torch.randn(5, 2, 4, 4)),
    ):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
        before = layer.length.detach().clone()
        (layer(x) * torch.randn_like(layer(x))).sum().backward()
        optimizer.step()
        assert layer.length != before


# 14: a truncated exponential counts as orthogonal


def test_trap_14_a_truncated_exponential_stretches():
    layer = layers.SOCConv2d(4, 4, 3, image_size=4, terms=6, bias=False).double().eval()
    kernel = layer.kernel().detach()

    def convolved(x):
        return F.conv2d(F.pad(x, (1,) * 4, mode="circular"), kernel)

    norm = sigma_max(materialised(convolved, (4, 4, 4)))
    layer.correction *= 1.5 / norm
    kernel = layer.kernel().detach()

    def naive(x):
        term = total = x
        for i in range(1, 6):
            term = convolved(term) / i
            total = total + term
        return total

    true = sigma_max(materialised(naive, (4, 4, 4)))
    assert true > 1.004  # what counts as 1 elsewhere: 20 layers of it stretch by 1.09
    assert true <= float(onelip.lipschitz_bound(layer)) <= true * (1 + 1e-6)
    exported = onelip.export(layer)
    assert sigma_max(materialised(exported, (4, 4, 4))) <= 1 + 1e-12
    assert float(onelip.lipschitz_bound(exported)) == 1


# 15: Bjorck stopped early, or left out, without measuring


def test_trap_15_a_norm_that_is_only_estimated():
    """deel-torchlip without Bjorck: declared 1, as is every layer of it."""
    torchlip = pytest.importorskip("deel.torchlip")
    torch.manual_seed(0)
    naive = torchlip.SpectralLinear(16, 16, eps_bjorck=None)
    optimizer = torch.optim.Adam(naive.parameters(), lr=1e-2)
    x, target = torch.randn(64, 16), 3 * torch.randn(64, 16)
    for _ in range(150):
        optimizer.zero_grad()
        (naive(x) - target).square().mean().backward()
        optimizer.step()
    stretch = float(jacobian_norm(naive.eval(), torch.zeros(16)))
    assert stretch > 1.02
    fixed = nn.Linear(16, 16)
    fixed.weight.data = naive.weight.detach()
    assert stretch * (1 - 1e-6) <= float(onelip.lipschitz_bound(fixed))


@pytest.mark.parametrize(("iterations", "order"), [(0, 1), (1, 1), (1, 2)])
def test_trap_15_ours_says_how_far_it_got(iterations, order):
    """After one iteration of order 1 the norm is below 1; of order 2 it may stay above."""
    stopped = partial(layers.bjorck, iterations=iterations, order=order, power_iterations=1)
    layer = layers.RKOConv2d(30, 30, 1, orthogonalise=stopped, bias=False).double()
    nn.init.normal_(layer.raw_weight)
    values = torch.linalg.svdvals(layer.weight.detach().flatten(1))
    largest, smallest = float(values.max()), float(values.min())
    assert smallest < 0.5  # far from orthogonal
    assert (largest > 1.001) == ((iterations, order) != (1, 1))
    assert largest <= float(onelip.lipschitz_bound(layer)) <= largest * 1.01


# 16: sqrt(2) where 2 is right


def test_trap_16_logits_that_are_1_lipschitz_one_by_one():
    """Disjoint heads: each logit is 1-Lipschitz, all together are not."""
    model = nn.Sequential(nn.Linear(1, 2)).double().eval()
    model[0].weight.data = torch.tensor([[1.0], [-1.0]], dtype=torch.float64)
    model[0].bias.data = torch.tensor([-0.5, 0.5], dtype=torch.float64)  # the boundary is at 1/2
    x = torch.tensor([[0.9], [0.3]], dtype=torch.float64)
    distance = (x - 0.5).abs().flatten()
    margin = (model(x)[:, 0] - model(x)[:, 1]).abs().detach()
    per_logit = [float(norms.dense(row[None])) for row in model[0].weight]
    assert max(per_logit) == pytest.approx(1)
    assert bool((margin / math.sqrt(2) > 1.4 * distance).all())  # what is claimed elsewhere
    for method in ("product", "liplt"):
        radius = certify(model, x, method=method).radius
        assert bool((radius <= distance * (1 + 1e-15)).all())
        assert radius.tolist() == pytest.approx(distance.tolist())


def test_trap_16_half_the_margin_is_for_the_maximum_norm_of_the_logits():
    """A 1-Lipschitz network's margin is sqrt(2)-Lipschitz: dividing by 2 wastes, by 1 lies."""
    head = nn.Sequential(nn.Linear(2, 2, bias=False)).double().eval()
    head[0].weight.data = torch.eye(2, dtype=torch.float64)
    x = torch.tensor([[0.9, 0.1]], dtype=torch.float64)
    distance = 0.8 / math.sqrt(2)
    body = nn.Sequential(head, nn.Identity()).eval()  # no linear head: the general rule
    for model in (head, body):
        radius = float(certify(model, x).radius)
        assert 0.8 / 2 < radius <= distance * (1 + 1e-15)
        assert radius == pytest.approx(distance)


# 17: LipSDP with coupled multipliers


def test_trap_17_lipsdp_network_is_below_the_constant():
    first = torch.tensor([[-0.76993978, 0.91454885], [-0.70216619, 1.02626461]]).double()
    second = torch.tensor([[1.2739675, -1.06217599]]).double()
    patterns = torch.tensor([[0.0, 0], [0, 1], [1, 0], [1, 1]]).double()  # all are reached
    truth = max(sigma_max((second * pattern) @ first) for pattern in patterns)
    assert truth == pytest.approx(1.5230, abs=1e-4)
    assert coupled([first, second]) == pytest.approx(0.2532, abs=1e-4)
    network = chain_of([first, second])
    assert truth <= float(bounds.LipSDP().bound(network)) <= truth * (1 + 1e-6)
    with pytest.raises(UsageError, match="proves nothing"):
        bounds.LipSDP("network").bound(network)


# 18: logits in few bits


def test_trap_18_rounding_alone_breaks_the_certificate_of_16_bit_logits():
    """The label of a bfloat16 network changes well inside of what its margin promises."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(400, 2)).eval()
    x = torch.rand(2000, 400)
    few = copy.deepcopy(model).bfloat16()
    with torch.no_grad():
        logits = few(x.bfloat16()).double()
        exact = model.double()(x.double())
    margins = logits.sort(1).values.diff(dim=1).flatten()
    slope = float((model[0].weight[0] - model[0].weight[1]).detach().norm())
    claimed = margins / slope  # in real arithmetic, from the logits of few bits
    wrong = logits.argmax(1) != exact.argmax(1)
    truth = (exact[:, 0] - exact[:, 1]).abs() / slope
    assert int((wrong & (claimed > 0)).sum()) > 0  # certified, and not even the network's label
    assert int((~wrong & (claimed > 2 * truth)).sum()) > 0
    with pytest.raises(UsageError, match="32 bits"):
        certify(few, x.bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        certificate = certify(model.float(), x)
    assert certificate.dtype == torch.float32
    assert bool((certificate.prediction == exact.argmax(1))[certificate.radius > 1e-5].all())
    assert bool((certificate.radius <= truth + 1e-5).all())


# 19: a lower bound of Wasserstein-1 from a critic with a constant above 1


def test_trap_19_an_undivided_critic_overstates_the_distance():
    """A norm by power iteration leaves a constant above 1, and the best pair of images shows it."""
    torch.manual_seed(0)
    conv = layers.OSSNConv2d(3, 4, 3, image_size=6, bias=False)
    nn.init.normal_(conv.raw_weight)  # one long step of an optimizer
    conv.double().eval()
    with torch.no_grad():
        matrix = materialised(conv, (3, 6, 6))
    outputs, sizes, inputs = torch.linalg.svd(matrix)
    assert float(sizes[0]) > 1.05
    critic = nn.Sequential(conv, nn.Flatten(), nn.Linear(144, 1, bias=False)).double()
    with torch.no_grad():
        critic[2].weight.copy_(outputs[:, :1].T)
    p, q = inputs[0].view(1, 3, 6, 6).repeat(5, 1, 1, 1), torch.zeros(5, 3, 6, 6).double()
    naive = (critic(p).mean() - critic(q).mean()).item()
    assert naive > 1.05 * exact_distance(p, q)
    assert judge(critic, p, q).value <= exact_distance(p, q)


# 22: strided circular kernels on images that the stride does not divide


@pytest.mark.parametrize("family", [layers.AOCConv2d, layers.BCOPConv2d, layers.RKOConv2d])
def test_trap_22_odd_images(family):
    """Windows that do not end where they began read some pixels twice."""
    kernel_size = 3 if family is layers.AOCConv2d else 2
    layer = family(2, 8, kernel_size, stride=2, bias=False).double()
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, abs=1e-8)
    fixed = onelip.export(layer)
    for size in (3, 5, 7):
        for part in (layer, fixed):
            with pytest.raises(ValueError, match="pad the image, or use padding_mode='zeros'"):
                part(torch.zeros(1, 2, size, size).double())
    plain = nn.Conv2d(2, 8, 3, stride=2, padding=1, padding_mode="circular", bias=False).double()
    plain.weight.data = layers.AOCConv2d(2, 8, 3, stride=2).double().weight.detach()
    with torch.no_grad():
        norms = [sigma_max(materialised(plain, (2, size, size))) for size in (3, 5, 7, 4, 6)]
    assert min(norms[:3]) > 1.2  # an orthogonal kernel, counted as 1 elsewhere
    assert max(norms[3:]) == pytest.approx(1, abs=1e-9)
    assert max(norms) <= float(onelip.lipschitz_bound(plain))
