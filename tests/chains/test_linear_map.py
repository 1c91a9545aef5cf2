"""Linear maps: adjoints, shapes, rounding."""

import pytest
import torch
from torch import nn

from onelip.chains import (
    Composition,
    Convolution,
    Dense,
    Gather,
    GroupMean,
    Reshape,
    Scale,
    Sum,
    composed,
    identity,
)
from onelip.chains.volume_convolution import VolumeConvolution


def _weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


MAPS = {
    "scale": Scale((3, 2, 2), _weight(3, 1, 1)),
    "dense": Dense(_weight(5, 7)),
    "convolution": Convolution((2, 7, 6), _weight(4, 2, 3, 3), padding=(1, 1)),
    "strided": Convolution((2, 7, 6), _weight(4, 2, 4, 3), stride=(2, 3), padding=(1, 0)),
    "dilated": Convolution((4, 9, 9), _weight(4, 2, 3, 3), dilation=(2, 2), groups=2),
    "circular": Convolution((2, 6, 5), _weight(3, 2, 3, 5), padding=(1, 2), circular=True),
    "circular-strided": Convolution(
        (2, 6, 6), _weight(3, 2, 4, 4), padding=(1, 1), stride=(2, 2), circular=True
    ),
    "volume": VolumeConvolution((2, 3, 4, 3), _weight(4, 2, 2, 3, 2), padding=(1, 0, 1)),
    "volume, strided": VolumeConvolution(
        (4, 4, 3, 5),
        _weight(2, 2, 2, 1, 2),
        stride=(2, 1, 2),
        padding=(0, 1, 2),
        dilation=(1, 2, 2),
        groups=2,
    ),
    "gather": Gather((4,), (2, 3), torch.tensor([3, -1, 0, 2, -1, -1])),
    "reshape": Reshape((2, 3), (6,)),
    "mean": GroupMean((6, 2), 3),
    "remainder": GroupMean((6,), 2, remainder=True),
    "composition": composed([Reshape((2, 3), (6,)), Dense(_weight(5, 6)), identity((5,))]),
    "sum": Sum((Dense(_weight(5, 6)), Dense(_weight(5, 6)))),
}


def test_adjoint_and_shapes(each) -> None:
    for linear in each(MAPS.values()):
        x, y = _weight(2, *linear.inputs), _weight(2, *linear.outputs)
        assert linear(x).shape == y.shape
        assert linear.adjoint(y).shape == x.shape
        left, right = (linear(x) * y).flatten(1).sum(1), (x * linear.adjoint(y)).flatten(1).sum(1)
        torch.testing.assert_close(left, right, rtol=1e-12, atol=1e-12)


def test_gradients_pass_through_both_directions(each) -> None:
    for linear in each(MAPS.values()):
        x = _weight(1, *linear.inputs).requires_grad_()
        y = _weight(1, *linear.outputs).requires_grad_()
        assert torch.autograd.gradcheck(linear, x)
        assert torch.autograd.gradcheck(linear.adjoint, y)


def test_norm_and_rounding_hold(each) -> None:
    for linear in each(MAPS.values()):
        basis = torch.eye(linear.columns, dtype=torch.float64).unflatten(1, linear.inputs)
        matrix = linear(basis).flatten(1)
        norm = linear.norm()
        if norm is not None:
            assert float(norm) >= float(torch.linalg.matrix_norm(matrix, 2)) * (1 - 1e-13)
        if isinstance(linear, Composition | Sum):
            with pytest.raises(TypeError, match="parts"):
                _ = linear.rounding
            continue
        x = _weight(4, *linear.inputs) / 3
        slack = linear.rounding * x.flatten(1).norm(dim=1) + linear.underflow
        again = (x.flatten(1) @ matrix).unflatten(1, linear.outputs)
        assert ((linear(x) - again).flatten(1).norm(dim=1) <= 2 * slack + 1e-30).all() or (
            linear.rounding == 0
        )


def test_affine_is_the_module() -> None:
    conv = nn.Conv2d(2, 3, 3, stride=2, padding=1, padding_mode="circular")
    linear = Convolution(
        (2, 6, 6), conv.weight, conv.bias, stride=(2, 2), padding=(1, 1), circular=True
    )
    x = torch.rand(2, 2, 6, 6)
    torch.testing.assert_close(linear.affine(x), conv(x))
    assert linear.exact().weight.dtype == torch.float64
    assert not linear.exact().weight.requires_grad


def test_gather_takes_once() -> None:
    with pytest.raises(ValueError, match="at most once"):
        Gather((2,), (2,), torch.tensor([0, 0]))
