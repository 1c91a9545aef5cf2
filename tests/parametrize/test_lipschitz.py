"""Weights divided by their norm: proved in eval mode, estimated in training."""

import copy
import io
import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize

import onelip
from onelip.errors import NonFiniteError, UnboundedModuleError, UsageError
from onelip.parametrize import lipschitz
from tests.oracles import materialised, sigma_max

LAYERS = [
    (lambda: nn.Linear(5, 7), (5,)),
    (lambda: nn.Linear(7, 1), (7,)),
    (lambda: nn.Conv1d(4, 6, 5, padding=2), (4, 9)),
    (lambda: nn.Conv1d(2, 2, 2, stride=3), (2, 9)),
    (lambda: nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 5, 6)),
    (lambda: nn.Conv2d(4, 4, 3, padding="same", dilation=2, groups=4), (4, 5, 5)),
    (lambda: nn.Conv2d(2, 3, (2, 4), padding="same", padding_mode="circular"), (2, 4, 5)),
    (lambda: nn.Conv2d(2, 2, 3, stride=2, padding=1, padding_mode="circular"), (2, 5, 5)),
    (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), (2, 3, 4)),
    (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="replicate"), (2, 1, 4)),
    (lambda: nn.Conv3d(2, 3, 3, padding=1), (2, 3, 3, 4)),
    (lambda: nn.ConvTranspose1d(4, 2, 4, stride=2, output_padding=1), (4, 5)),
    (lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, groups=2), (4, 3, 4)),
    (lambda: nn.ConvTranspose3d(2, 2, 2, stride=2), (2, 2, 2, 3)),
]


def trained(module: nn.Module, shape: tuple[int, ...], lr: float = 3.0) -> nn.Module:
    """A few steps, with a learning rate that is much too large."""
    module.train()
    optimiser = torch.optim.SGD(module.parameters(), lr=lr)
    x = torch.randn(4, *shape, dtype=module.bias.dtype)
    for _ in range(3):
        optimiser.zero_grad()
        module(x).square().sum().backward()
        optimiser.step()
    return module


def exact(module: nn.Module, shape: tuple[int, ...]) -> float:
    twin = onelip.export(module).double()
    twin.bias = None
    return sigma_max(materialised(twin, shape))


def state_of(module: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def same_state(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first | second)


def test_the_constant_is_proved_in_eval_mode(each):
    for build, shape in each(LAYERS):
        for k in (1.0, 0.3, 7.0):
            module = trained(lipschitz(build(), k), shape).eval()
            bound = float(onelip.lipschitz_bound(module))
            assert 0.98 * k <= bound <= k * (1 + 1e-6), module
            assert exact(module, shape) <= bound
            trained(module, shape).eval()  # proved anew
            assert float(onelip.lipschitz_bound(module)) <= k * (1 + 1e-6)


def test_the_estimate_of_training_is_near(each):
    """Between grid points and for a few steps it is off by percents, and from below."""
    for build, _ in each(LAYERS):
        module = lipschitz(build())
        for _ in range(40):  # the same weights count once
            module.parametrizations.weight.original.data *= 1.001
            weight = module.weight.detach()
        module.eval()
        ratio = float(weight.norm() / module.weight.detach().norm())
        assert 1 - 1e-5 <= ratio <= 1.06, module


def test_a_state_travels(each):
    """Saved in either mode, and loaded in either mode."""
    for build, shape in each(LAYERS):
        x = torch.randn(2, *shape)
        for saved_in, loaded_in in ((True, True), (True, False), (False, True), (False, False)):
            module = trained(lipschitz(build(), 2.0), shape).train(saved_in)
            file = io.BytesIO()
            torch.save(module.state_dict(), file)
            file.seek(0)
            fresh = lipschitz(build(), 2.0).train(loaded_in)
            fresh.load_state_dict(torch.load(file, weights_only=True))
            if saved_in == loaded_in:
                assert torch.equal(fresh(x), module(x))
            module.eval()
            fresh.eval()
            assert torch.equal(fresh(x), module(x))
            assert torch.equal(onelip.lipschitz_bound(fresh), onelip.lipschitz_bound(module))
            assert float(onelip.lipschitz_bound(fresh)) <= 2 * (1 + 1e-6)


def test_no_query_changes_a_state(each):
    for build, shape in each(LAYERS):
        module = trained(lipschitz(build()), shape).eval()
        before, x = state_of(module), torch.randn(2, *shape)
        first = module(x)
        onelip.lipschitz_bound(module)
        plain = onelip.export(module)
        twin = copy.deepcopy(module)
        assert torch.equal(module(x), first)
        assert same_state(before, state_of(module))
        assert same_state(before, state_of(twin))
        assert type(plain) is type(build())
        assert torch.equal(plain(x), first)
        assert torch.equal(onelip.lipschitz_bound(plain), onelip.lipschitz_bound(module))
        program = torch.export.export(module, (x,)).module()
        assert torch.equal(program(x), first)
        parametrize.remove_parametrizations(module, "weight")
        assert torch.equal(module(x), first)


def test_a_copy_proves_its_own_weight():
    module = lipschitz(nn.Linear(3, 3))
    twin = copy.deepcopy(module)
    with torch.no_grad():
        twin.parametrizations.weight.original.mul_(torch.tensor([10.0, 1.0, 1.0]))
    twin.eval()
    assert float(onelip.lipschitz_bound(twin)) <= 1 + 1e-6
    assert torch.equal(module.parametrizations.weight[0].proved_for, torch.tensor(-1))


def test_the_same_weights_give_the_same_numbers_in_training():
    for build, shape in LAYERS[:5]:
        module, x = lipschitz(build()), torch.randn(2, *shape)
        first = module(x)
        before = state_of(module)
        assert torch.equal(module(x), first)
        assert same_state(before, state_of(module))
        with torch.no_grad():
            module.parametrizations.weight.original.mul_(1.01)
        module(x)
        assert not same_state(before, state_of(module))


def test_two_passes_before_a_backward_pass():
    """With the weights moved in between, as in some adversarial training."""
    module, x = lipschitz(nn.Conv2d(2, 2, 3)), torch.randn(1, 2, 5, 5)
    first = module(x)
    second = module(2 * x)
    (first.sum() + second.sum()).backward()
    assert module.parametrizations.weight.original.grad.isfinite().all()


def test_the_gradient_is_that_of_the_exact_norm():
    module = lipschitz(nn.Linear(4, 3).double(), n_power_iterations=300)
    raw = module.parametrizations.weight.original
    image = torch.randn(3, 4, dtype=torch.float64)
    (module.weight * image).sum().backward()
    twin = raw.detach().clone().requires_grad_()
    (twin / torch.linalg.matrix_norm(twin, 2) * image).sum().backward()
    assert torch.allclose(raw.grad, twin.grad, atol=1e-9)


def test_the_gradient_of_a_convolution():
    """On the grid of its estimate the norm of the map is the largest of the transform."""
    module = lipschitz(nn.Conv2d(3, 4, 3).double(), n_power_iterations=3000)
    raw = module.parametrizations.weight.original
    image = torch.randn_like(raw)
    (module.weight * image).sum().backward()
    twin = raw.detach().clone().requires_grad_()
    symbol = torch.fft.fft2(twin, s=(32, 32)).permute(2, 3, 0, 1)
    (twin / torch.linalg.matrix_norm(symbol, 2).max() * image).sum().backward()
    assert torch.allclose(raw.grad, twin.grad, atol=1e-5)


def test_another_group_may_become_the_largest():
    module = lipschitz(nn.Conv2d(4, 4, 3, groups=4))
    for group in (0, 3, 1):
        with torch.no_grad():
            raw = module.parametrizations.weight.original
            raw.copy_(torch.randn_like(raw) * 0.01)
            raw[group] *= 1000
        for _ in range(30):
            raw.data *= 1.001
            weight = module.weight.detach()
        assert float(onelip.norms.conv2d(weight, groups=4)) <= 1.06


def test_zero_and_non_finite_weights():
    module = lipschitz(nn.Conv2d(2, 2, 3))
    raw = module.parametrizations.weight.original
    raw.data.zero_()
    assert not module(torch.randn(1, 2, 4, 4)).isnan().any()
    module.eval()
    assert float(onelip.lipschitz_bound(module)) <= 1e-100
    raw.data.normal_()  # it recovers
    module.train()
    for _ in range(60):
        raw.data *= 1.001
        assert module.weight.isfinite().all()
    assert float(onelip.lipschitz_bound(module.eval())) <= 1 + 1e-6
    raw.data[0, 0, 0, 0] = math.nan
    module.train().eval()
    with pytest.raises(NonFiniteError):
        onelip.lipschitz_bound(module)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_dtypes(dtype):
    for build, _ in LAYERS[:6]:
        module = lipschitz(build()).to(dtype)
        module.weight  # noqa: B018  a step in training
        bound = float(onelip.lipschitz_bound(module.eval()))
        assert 0.97 <= bound <= 1 + 2 * torch.finfo(dtype).eps


def test_weights_that_change_in_eval_mode_are_bounded_as_they_are():
    """No query hides it, and the proof can be asked for."""
    module = lipschitz(nn.Linear(3, 3)).eval()
    module.parametrizations.weight.original.data *= 5
    assert float(onelip.lipschitz_bound(module)) == pytest.approx(5, rel=1e-5)
    module.parametrizations.weight[0].prove()
    assert float(onelip.lipschitz_bound(module)) <= 1 + 1e-6


def test_in_eval_mode_from_the_start():
    module = lipschitz(nn.Conv2d(2, 2, 3).eval())
    assert not module.parametrizations.weight[0].training
    assert 0.98 < float(onelip.lipschitz_bound(module)) <= 1 + 1e-6


def test_nothing_is_proved_in_training_mode():
    with pytest.raises(UnboundedModuleError, match=r"model\.eval"):
        onelip.lipschitz_bound(lipschitz(nn.Linear(2, 2)))


def test_in_a_network_that_is_certified():
    model = nn.Sequential(
        lipschitz(nn.Conv2d(1, 4, 3, padding=1)),
        nn.ReLU(),
        nn.Flatten(),
        lipschitz(nn.Linear(64, 3)),
    ).eval()
    images = torch.rand(5, 1, 4, 4)
    certificate, plain = (onelip.certify(m, images) for m in (model, onelip.export(model)))
    assert torch.equal(certificate.radius, plain.radius)
    assert certificate.radius.max() > 0
    assert float(onelip.lipschitz_bound(model)) <= (1 + 1e-6) ** 2


def test_what_is_refused():
    class Mine(nn.Linear): ...

    cases = [
        (lambda: lipschitz(Mine(2, 2)), "Mine is none of Linear, Conv1d"),
        (lambda: lipschitz(nn.BatchNorm1d(2)), "BatchNorm1d is none of"),
        (lambda: lipschitz(lipschitz(nn.Linear(2, 2))), "remove_parametrizations first"),
        (lambda: lipschitz(nn.Linear(2, 2), 0.0), "k must be positive"),
        (lambda: lipschitz(nn.Linear(2, 2), math.inf), "k must be positive"),
        (lambda: lipschitz(nn.Linear(2, 2), n_power_iterations=0), "n_power_iterations must be"),
        (lambda: lipschitz(nn.Linear(2, 2).to(torch.complex64)), "complex"),
    ]
    for call, message in cases:
        with pytest.raises(UsageError, match=message):
            call()


def test_torchs_spectral_norm_of_a_convolution_is_another_number():
    """The negative control: what these parametrizations are there for."""
    conv = nn.Conv2d(8, 8, 3, padding=1, bias=False)
    conv.weight.data.abs_()
    theirs = parametrizations.spectral_norm(copy.deepcopy(conv), n_power_iterations=200)
    theirs(torch.randn(1, 8, 9, 9))
    ours = lipschitz(copy.deepcopy(conv))
    assert exact(theirs.eval(), (8, 9, 9)) > 2
    assert exact(ours.eval(), (8, 9, 9)) <= 1 + 1e-6
