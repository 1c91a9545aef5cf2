"""Normalisations and lengths written by hand: the chain computes them, and has their constant."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from onelip.bounds import Product
from onelip.errors import UnboundedModuleError, UsageError
from onelip.reading import read
from onelip.testing import jacobian_norm

SHAPE = (6, 3, 4)
EPSILON = 0.3
COUNT = 12  # numbers of an image of a channel


class Of(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function
        self.register_buffer("dtype", torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        return self.function(x)


def deviations(x: Tensor, *axes: int) -> Tensor:
    return x - x.mean(axes, keepdim=True)


def of_squares(x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    variance = x.square().mean(-1, keepdim=True) - mean**2
    return (x - mean) / (variance + EPSILON).sqrt()


def var_mean(x: Tensor) -> Tensor:
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    return (x - mean) * torch.rsqrt(variance + EPSILON)


CENTRED = {  # steepest where all numbers are equal
    "layer": lambda x: (
        deviations(x, -1) / (deviations(x, -1).pow(2).mean(-1, keepdim=True) + EPSILON).sqrt()
    ),
    "layer, by var": lambda x: (
        deviations(x, -1) / torch.sqrt(x.var(-1, unbiased=False, keepdim=True) + EPSILON)
    ),
    "layer, by squares less a square": of_squares,
    "layer, one over a root": lambda x: (
        deviations(x, 1) * (1 / (x.var(1, unbiased=False, keepdim=True) + EPSILON).sqrt())
    ),
    "instance, by var": lambda x: (
        deviations(x, 2, 3) * (x.var((2, 3), keepdim=True) + EPSILON) ** -0.5
    ),
    "instance, by var_mean": var_mean,
}
CENTRED_LENGTHS = {
    "layer, by std": (lambda x: deviations(x, -1) / (x.std(-1, keepdim=True) + EPSILON), EPSILON),
    "layer, std from below": (
        lambda x: deviations(x, -1) / x.std(-1, keepdim=True).clamp_min(EPSILON),
        EPSILON,
    ),
}
FREE = {  # steepest at 0
    "rms": (lambda x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPSILON), EPSILON**0.5),
    "rms, times itself": (lambda x: x / ((x * x).mean(1, keepdim=True) + 0.1).sqrt(), 0.1**0.5),
    "normalize": (lambda x: F.normalize(x, dim=1, eps=EPSILON), EPSILON),
    "normalize, of images": (lambda x: F.normalize(x.flatten(1), eps=0.02), 0.02),
    "length and a number": (lambda x: x / (x.norm(dim=(1, 2), keepdim=True) + EPSILON), EPSILON),
    "squares from below": (
        lambda x: x / x.square().sum(1, keepdim=True).clamp(min=EPSILON).sqrt(),
        EPSILON**0.5,
    ),
    "length from below": (
        lambda x: x / torch.linalg.vector_norm(x, dim=2, keepdim=True).clamp(min=EPSILON),
        EPSILON,
    ),
}


def points() -> Tensor:
    x = torch.randn(6, *SHAPE, dtype=torch.float64)
    return x * torch.tensor([1e-9, 1e-3, 0.1, 0.5, 1, 10]).double().view(-1, 1, 1, 1)


def checked(function, steepest: float) -> None:
    """The values, the constant, and a point that attains it."""
    model = Of(function).eval()
    chain = read(model, SHAPE).exact()
    x = points()
    assert torch.allclose(chain.forward(x), model(x), rtol=1e-9, atol=1e-12)
    bound = float(Product().bound(chain))
    seen = [float(jacobian_norm(model, one)) for one in x]
    assert max(seen) <= bound * (1 + 1e-12)
    assert bound == pytest.approx(steepest, rel=1e-6)
    assert seen[0] == pytest.approx(steepest, rel=1e-5)  # close to 0


@pytest.mark.parametrize("name", CENTRED)
def test_a_normalisation_has_the_constant_of_its_epsilon(name):
    checked(CENTRED[name], EPSILON**-0.5)


@pytest.mark.parametrize("name", [*CENTRED_LENGTHS, *FREE])
def test_divisions_by_lengths(name):
    function, least = (CENTRED_LENGTHS | FREE)[name]
    checked(function, 1 / least)


def test_normalize_of_unit_vectors_is_one_over_epsilon():
    """Within the ball of radius epsilon it is x / epsilon, whatever the dimension."""
    model = nn.Sequential(nn.Linear(5, 8), Of(F.normalize)).double().eval()
    bound = float(Product().bound(read(model, (5,))))
    norm = float(torch.linalg.matrix_norm(model[0].weight, 2))
    assert bound == pytest.approx(1e12 * norm, rel=1e-9)


@pytest.mark.parametrize("order", ["length", "root"])
def test_lengths_that_divide_nothing_are_lengths(order):
    """They are features like others, sums and clamps with numbers too."""
    lengths = {
        "length": lambda x: 2 * (x.norm(dim=1) + 3).clamp(min=4),
        "root": lambda x: 2 * (x.pow(2).sum(1).sqrt() + 3).clamp_min(4),
    }
    model = Of(lengths[order]).eval()
    chain = read(model, SHAPE).exact()
    x = points()
    assert torch.allclose(chain.forward(x), model(x))
    assert float(Product().bound(chain)) == pytest.approx(2)


@pytest.mark.parametrize("number", [0.3, 0.7])
def test_numbers_that_single_precision_rounds(number):
    """0.3 is rounded upwards there and 0.7 downwards: the bound holds of either function."""
    least = min(number, float(torch.tensor(number, dtype=torch.float32)))
    for function, steepest in (
        (lambda x: F.normalize(x, eps=number), 1 / least),
        (lambda x: x / (x.pow(2).sum(1, keepdim=True) + number).sqrt(), least**-0.5),
        (lambda x: F.layer_norm(x, (5,), eps=number), least**-0.5),
    ):
        chain = read(Of(function).eval().float(), (5,))
        assert steepest <= float(Product().bound(chain)) <= steepest * (1 + 1e-9)


REFUSED = {
    "no epsilon": (lambda x: deviations(x, -1) / x.std(-1, keepdim=True), "jumps"),
    "another value": (
        lambda x: x / (x.var(-1, unbiased=False, keepdim=True) + 1).sqrt(),
        "depends on the input",
    ),
    "other axes": (
        lambda x: deviations(x, 1) / (x.var(-1, unbiased=False, keepdim=True) + 1).sqrt(),
        "depends on the input",
    ),
    "another square": (
        lambda x: (
            x / (x.square().mean(-1, keepdim=True) - (2 * x.mean(-1, keepdim=True)) ** 2 + 1).sqrt()
        ),
        "a difference of squares",
    ),
    "a negative number": (
        lambda x: x / (x.square().mean(-1, keepdim=True) - 0.1).sqrt(),
        "no global Lipschitz constant",
    ),
    "a negative length": (lambda x: x / (x.norm(dim=1, keepdim=True) - 1), "depends on the input"),
    "a variance": (lambda x: x.var(1), "no global Lipschitz constant"),
    "a cube": (lambda x: x.pow(3), "no global Lipschitz constant"),
    "a root": (lambda x: x.sqrt(), "steep without limit"),
    "one over it": (lambda x: 1 / x, "one over what depends"),
    "another power": (lambda x: x.pow(1.5), "the power 1.5"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_constant(name):
    function, message = REFUSED[name]
    with pytest.raises(UnboundedModuleError, match=message):
        read(Of(function).eval(), SHAPE)


def test_the_variance_of_one_number():
    with pytest.raises(UsageError, match="variance of 1 numbers"):
        read(Of(lambda x: x.var((1, 2, 3), keepdim=True)).eval(), (1, 1, 1))
