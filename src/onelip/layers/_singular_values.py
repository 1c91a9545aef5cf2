"""Singular values of a layer, to look at; what is proved is its bound."""

import copy
import math

import torch
from torch import Tensor, nn

from onelip.errors import UsageError

_CHUNK = 256  # inputs in a batch


@torch.no_grad()
def singular_values(layer: nn.Module, shape: tuple[int, ...]) -> Tensor:
    """Return the singular values of an affine layer on inputs of a shape, the largest first.

    They are computed in float64 by a decomposition of its matrix: numbers to look at, up to
    rounding, and no bound. ``onelip.lipschitz_bound`` proves one.

    Cost: a forward pass of one input for each number of the shape, and a decomposition of the
    matrix: seconds up to about 2000 numbers.

    Args:
        layer: any module that is affine, in whatever mode; a copy in eval mode is used.
        shape: of one input, without the batch.

    Returns:
        ``(min(inputs, outputs),)`` float64 on the CPU.

    Raises:
        UsageError: the layer is not affine at random inputs, or does not take the shape.

    Example:
        >>> from onelip.layers import AOCConv2d
        >>> singular_values(AOCConv2d(1, 2, 3, 2), (1, 4, 4)).allclose(torch.ones(8).double())
        True
    """
    twin = copy.deepcopy(layer).eval().to("cpu", torch.float64)
    count = math.prod(shape)
    zero = torch.zeros(1, *shape, dtype=torch.float64)
    try:
        origin = twin(zero.clone()).flatten()
    except (RuntimeError, ValueError, IndexError) as error:
        raise UsageError(f"does not take inputs of shape {shape}: {error}") from error
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, *shape, dtype=torch.float64, generator=generator)
    images = [twin(scale * x).flatten(1) - origin for scale in (1.0, -3.0)]
    if not torch.allclose(images[1], -3 * images[0], rtol=1e-9, atol=1e-9):
        raise UsageError(
            f"{type(layer).__name__} is not affine: singular values are those of a matrix"
        )
    rows = []
    for start in range(0, count, _CHUNK):
        places = torch.arange(start, min(start + _CHUNK, count))
        basis = torch.zeros(len(places), count, dtype=torch.float64)
        basis[torch.arange(len(places)), places] = 1
        rows.append(twin(basis.view(-1, *shape)).flatten(1) - origin)
    values: Tensor = torch.linalg.svdvals(torch.cat(rows))
    return values
