"""The one inverse of the library, where torch's batched one is wrong: by its residual."""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

import onelip
from onelip.flows import ImplicitEulerSkew, SkewLinear
from onelip.layers import CayleyConv2d, CayleyLinear
from onelip.layers.accretive_inverse import accretive_inverse

DTYPES = [torch.float32, torch.float64, torch.complex64, torch.complex128]


def accretive(count: int, size: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """``I + A`` with a skew part of norm about 6 and a positive part of rank 3."""
    generator = torch.Generator().manual_seed(seed)
    free = 3 * torch.randn(count, size, size, dtype=dtype, generator=generator) / size**0.5
    rest = torch.randn(count, 3, size, dtype=dtype, generator=generator) / size**0.5
    return torch.eye(size, dtype=dtype) + free - free.mH + rest.mH @ rest


def residual(matrices: torch.Tensor, inverses: torch.Tensor) -> float:
    return float((matrices @ inverses - torch.eye(matrices.shape[-1])).abs().max())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("count", [2, 40])
def test_residual(threads, count, dtype):
    """torch's own inverse leaves 1 and more with two threads, or crashes."""
    units = 200 * torch.finfo(dtype).eps
    for size in (1, 2, 127, 128, 129, 151, 160, *([] if count > 2 else [200, 256])):
        matrices = accretive(count, size, dtype)
        assert residual(matrices, accretive_inverse(matrices)) < units, size


def test_two_python_threads_at_once(threads):
    def worst(seed: int) -> float:
        torch.set_num_threads(threads)
        matrices = accretive(20, 200, torch.float32, seed)
        return max(residual(matrices, accretive_inverse(matrices)) for _ in range(5))

    with ThreadPoolExecutor(2) as pool:
        assert max(pool.map(worst, range(4))) < 1e-4


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128], ids=str)
@pytest.mark.parametrize("size", [128, 151, 256])
def test_gradient(threads, size, dtype):
    """``-X^H G X^H``, forwards ``-X dM X``, and under vmap."""
    matrices = accretive(2, size, dtype).requires_grad_()
    weights = torch.randn(matrices.shape, dtype=dtype)
    found = accretive_inverse(matrices)
    (gradient,) = torch.autograd.grad((found * weights.conj()).sum().real, matrices)
    inverse = found.detach()
    expected = -inverse.mH @ weights @ inverse.mH
    assert torch.allclose(gradient, expected, atol=1e-10)
    plain = matrices.detach()
    _, tangent = torch.func.jvp(accretive_inverse, (plain,), (weights,))
    assert torch.allclose(tangent, -inverse @ weights @ inverse, atol=1e-10)
    mapped = torch.func.vmap(accretive_inverse)(plain)
    assert torch.allclose(mapped, inverse, atol=1e-12)


def test_second_derivatives():
    matrices = accretive(2, 3, torch.float64).requires_grad_()
    assert torch.autograd.gradgradcheck(accretive_inverse, (matrices,))
    large = accretive(1, 130, torch.float64)[0, :, :1].clone().requires_grad_()
    fixed = accretive(1, 130, torch.float64)[0, :, 1:]

    def corner(column: torch.Tensor) -> torch.Tensor:
        return accretive_inverse(torch.cat([column, fixed], 1))[:2, :2]

    assert torch.autograd.gradgradcheck(corner, (large,), fast_mode=True)


def test_more_matrices_than_one_call_takes(monkeypatch):
    monkeypatch.setattr("onelip.layers.accretive_inverse._BATCH", 3)
    matrices = accretive(8, 4, torch.float64).view(2, 4, 4, 4)
    assert torch.allclose(accretive_inverse(matrices), torch.linalg.inv(matrices))
    assert accretive_inverse(matrices[:0]).shape == (0, 4, 4, 4)


def test_cayley_layers_of_many_channels(threads):
    """With 160 channels they crashed here, or stretched by 1.0136."""
    layer = CayleyConv2d(160, 160, 3, image_size=4)
    spectrum = layer.weight.detach()
    assert torch.allclose(torch.linalg.svdvals(spectrum), torch.ones(160), atol=1e-5)
    assert float(onelip.lipschitz_bound(layer)) == pytest.approx(1, abs=1e-5)
    (layer(torch.randn(2, 160, 4, 4)) ** 2).sum().backward()
    assert layer.raw_weight.grad.isfinite().all()
    assert float(onelip.lipschitz_bound(CayleyLinear(200, 200))) == pytest.approx(1, abs=1e-5)
    shrinking = ImplicitEulerSkew(SkewLinear(160))
    assert float(onelip.lipschitz_bound(shrinking)) <= 1 + 1e-5


def test_nothing_else_inverts_or_solves():
    """One place for what torch has wrong; triangular solves are right."""
    wrong = re.compile(r"linalg\.(inv|pinv|solve|solve_ex|inv_ex|tensorsolve|lu\w*|ldl\w*)\(")
    source = Path(onelip.__file__).parent
    found = {file.name for file in source.rglob("*.py") if wrong.search(file.read_text())}
    assert found == {"accretive_inverse.py"}
