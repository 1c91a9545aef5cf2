"""Modules of torch without a record of their own: read by a trace, as a user's class is."""

import pytest
import torch
from torch import nn

import onelip
from onelip.errors import UnboundedModuleError
from onelip.reading import read

LINEAR = [
    (nn.Upsample(scale_factor=2), (1, 3, 4)),
    (nn.UpsamplingBilinear2d(scale_factor=2), (1, 3, 2)),
    (nn.CircularPad1d(2), (1, 3)),
    (nn.CircularPad2d((1, 2, 0, 1)), (2, 3, 3)),
    (nn.ReplicationPad1d((2, 1)), (1, 3)),
    (nn.ReplicationPad2d(1), (1, 3, 4)),
    (nn.ReplicationPad3d(1), (1, 2, 2, 3)),
    (nn.ReflectionPad1d(2), (2, 4)),
    (nn.ReflectionPad2d((1, 0, 2, 1)), (1, 3, 4)),
    (nn.ConstantPad1d(1, 0.5), (1, 3)),
    (nn.AvgPool1d(2), (2, 5)),
    (nn.AvgPool1d(3, 2, padding=1), (1, 6)),
    (nn.AvgPool1d(3, 2, padding=1, count_include_pad=False, ceil_mode=True), (1, 6)),
    (nn.AvgPool3d((1, 2, 2), 1), (1, 2, 3, 3)),
    (nn.AvgPool3d(2, divisor_override=3), (1, 2, 4, 2)),
    (nn.AdaptiveAvgPool1d(2), (1, 5)),
    (nn.AdaptiveAvgPool2d((2, 3)), (1, 3, 5)),
    (nn.AdaptiveAvgPool3d((1, None, 2)), (1, 2, 2, 3)),
    (nn.Unfold(2, padding=1), (1, 3, 3)),
]

OTHERS = [
    (nn.MaxPool1d(3, 2, padding=1), (2, 6)),
    (nn.MaxPool3d(2, 1), (1, 2, 3, 3)),
    (nn.AdaptiveMaxPool1d(3), (1, 5)),
    (nn.AdaptiveMaxPool2d((2, 1)), (1, 3, 3)),
    (nn.RReLU(), (5,)),
]


def name(case) -> str:
    return repr(case) if isinstance(case, nn.Module) else ""


@pytest.mark.parametrize(("module", "shape"), LINEAR, ids=name)
def test_linear_ones_have_their_norm(module, shape):
    module = module.eval()
    x = torch.randn(shape).double()
    run = lambda z: module(z[None])[0].flatten()  # noqa: E731
    jacobian = torch.autograd.functional.jacobian(run, x).flatten(1)
    exact = float(torch.linalg.matrix_norm(jacobian, 2))
    method = "liplt" if isinstance(module, nn.AdaptiveAvgPool2d) else "product"
    for found in (module, nn.Sequential(module, nn.Flatten()).eval()):
        bound = float(onelip.lipschitz_bound(found, shape, method=method))
        assert exact * (1 - 1e-14) <= bound <= exact * (1 + 1e-6)
    values = read(nn.Sequential(module, nn.Flatten()).eval(), shape).exact().forward(x[None])
    assert torch.allclose(values, run(x)[None], atol=1e-12)


@pytest.mark.parametrize(("module", "shape"), OTHERS, ids=name)
def test_others_are_never_steeper(module, shape):
    module = module.eval()
    bound = float(onelip.lipschitz_bound(nn.Sequential(module, nn.Flatten()).eval(), shape))
    steepest = 0.0
    for _ in range(30):
        x = torch.randn(shape).double()
        jacobian = torch.autograd.functional.jacobian(lambda z: module(z[None])[0].flatten(), x)
        norm = float(torch.linalg.matrix_norm(jacobian.flatten(1).reshape(-1, x.numel()), 2))
        steepest = max(steepest, norm)
    assert steepest * (1 - 1e-14) <= bound
    assert bound < 2.5 * steepest


def test_a_network_of_sequences_is_certified():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv1d(2, 4, 3),
        nn.ReLU(),
        nn.AvgPool1d(2),
        nn.ReplicationPad1d(1),
        nn.Conv1d(4, 4, 3),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(2),
        nn.Flatten(),
        nn.Linear(8, 3),
    ).eval()
    found = onelip.certify(model, torch.rand(5, 2, 12), method="liplt")
    assert (found.radius > 0).all()


def test_what_jumps_is_refused():
    for module in (nn.Hardshrink(), nn.Sequential(nn.Linear(3, 3), nn.Hardshrink())):
        module.eval()
        with pytest.raises(UnboundedModuleError, match="hardshrink"):
            onelip.lipschitz_bound(module, (3,))


@pytest.mark.parametrize("kind", [{"scale_factor": 41}, {"size": (123, 82)}])
def test_pixels_that_float32_copies_once_more(kind):
    """The inverse of 41 is rounded down: some pixels are copied 42 times."""
    module = nn.Upsample(**kind).eval()
    copies = module(torch.arange(6.0).view(1, 1, 3, 2)).flatten().long().bincount()
    assert int(copies.max()) > 41**2
    with pytest.raises(UnboundedModuleError, match="takes other pixels in float32"):
        onelip.lipschitz_bound(module, (1, 3, 2))
    for factor in (1, 2, 3, 40, 64):
        fine = nn.Upsample(scale_factor=factor).eval()
        assert float(onelip.lipschitz_bound(fine, (1, 3, 2))) == pytest.approx(factor, rel=1e-6)
