r"""ECLipsE: multipliers layer by layer, from the first to the last.

Behind layer k the method knows a matrix with :math:`x_k^T X_k x_k \le |x_0|^2` for all differences
:math:`x_k` that a difference :math:`x_0` of inputs can cause. A layer's multipliers turn
:math:`X_k` into :math:`X_{k+1}`; the constant is the root of the largest eigenvalue of
:math:`W_L X_L^{-1} W_L^T`. Each step is a problem of the size of one layer, so depth costs no more
than time.
"""

import math
import time

import torch
from torch import Tensor

from onelip.bounds.semidefinite.forms import Multipliers, scaled
from onelip.bounds.semidefinite.layerwise import fast, forward, strictly
from onelip.bounds.semidefinite.matrices import (
    Groups,
    Matrices,
    Slopes,
    matrices,
    refuse_other_blocks,
)
from onelip.bounds.semidefinite.multipliers import proved
from onelip.bounds.semidefinite.programmes import coordinates, optimised
from onelip.chains import Chain
from onelip.errors import NotApplicableError
from onelip.norms.rounding import asked_once

LARGEST = 2500
"""Rows of the matrix of the programme of one layer: steps cost its cube."""


@asked_once()
def eclipse_fast(chain: Chain) -> Tensor:
    r"""Proved bound of the Lipschitz constant of a plain chain by ECLipsE-Fast.

    One weight per layer, in closed form: for slopes in :math:`[a, b]` it is
    :math:`1 / (h (|m| + h) \lambda_{max}(W X^{-1} W^T))` with :math:`h = (b - a) / 2` and
    :math:`m = (a + b) / 2`, which keeps what the product of norms knows and adds the rest. For
    sorting the means of the groups pass unchanged; the weight of the remainder is the best of a
    few. In the end all weights are scaled together.

    Bound: at most the product of the layers' constants.
    Cost: some ten factorisations and thirty products per layer, so the cube of the widths.

    Args:
        chain: plain layers with elementwise activations or sorting.

    Returns:
        A 0-d float64 tensor.

    Raises:
        NotApplicableError: other blocks, or a layer of more than 4096 numbers.
        NonFiniteError: a weight is infinite or NaN.

    Example:
        >>> from torch import nn
        >>> from onelip.chains import Block, Dense, Elementwise
        >>> weights = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, 1.0]])  # |x|
        >>> block = Block(Dense(weights[0]), Elementwise.of(nn.ReLU()))
        >>> eclipse_fast(Chain((block,), Dense(weights[1])))
        tensor(1.0000, dtype=torch.float64)

    Reference: Xu and Sivaranjani, "ECLipsE: efficient compositional Lipschitz constant estimation
    for deep neural networks" (2024).
    """
    network = matrices(chain)
    return proved(network, forward(network, fast)[0]) if hopeful(network) else network.naive


@asked_once()
def eclipse(chain: Chain, *, seconds: float | None = None) -> Tensor:
    """Proved bound of the Lipschitz constant of a plain chain by ECLipsE.

    One weight per entry: those of a layer minimise what the layer behind it can make of them, a
    problem that is solved by an interior-point method. With one hidden layer this is LipSDP.

    Bound: at most that of ``eclipse_fast``.
    Cost: 15 to 30 steps per layer, each some products of matrices as large as the layer and the
        next together: the cube of both.

    Args:
        chain: plain layers with elementwise activations or sorting.
        seconds: after that time the layers that are left take the weights of ``eclipse_fast``.

    Returns:
        A 0-d float64 tensor.

    Raises:
        NotApplicableError: other blocks, or two neighbouring layers of more than 2500 numbers.
        NonFiniteError: a weight is infinite or NaN.

    Example:
        >>> from torch import nn
        >>> from onelip.chains import Block, Dense, Elementwise
        >>> weights = torch.tensor([[1.0], [-1.0]]), torch.tensor([[1.0, 1.0]])  # |x|
        >>> block = Block(Dense(weights[0]), Elementwise.of(nn.ReLU()))
        >>> eclipse(Chain((block,), Dense(weights[1])))
        tensor(1.0000, dtype=torch.float64)

    Reference: as ``eclipse_fast``.
    """
    refuse_other_blocks(chain)
    _refuse_large(chain)
    network = matrices(chain)
    if not hopeful(network):
        return network.naive
    until = math.inf if seconds is None else time.monotonic() + seconds

    def best(kind: Slopes | Groups, weight: Tensor, behind: Tensor) -> Multipliers:
        left = until - time.monotonic()
        if left <= 0:
            return fast(kind, weight, behind)
        layer = _single(kind, weight, behind)
        found, level = optimised(layer, *strictly(layer), seconds=left)
        return scaled(found[0], 1 / level)

    found = [proved(network, forward(network, rule)[0]) for rule in (fast, best)]
    return torch.minimum(*found)


def hopeful(network: Matrices) -> bool:
    """Whether the product of the constants leaves something to improve."""
    return bool(network.kinds) and 0 < float(network.naive) < math.inf


def _single(kind: Slopes | Groups, weight: Tensor, behind: Tensor) -> Matrices:
    """The layer and the matrix behind it, as a network."""
    unknown = [torch.ones((), dtype=torch.float64)] * 2
    return Matrices([weight, behind], unknown, unknown, unknown, [kind], unknown)


def _refuse_large(chain: Chain) -> None:
    lasts = [*(block.inner for block in chain.blocks[1:]), chain.last]
    pairs = zip(chain.blocks, lasts, strict=False)
    sizes = [coordinates(Chain((block,), last)) for block, last in pairs]
    if sizes and max(sizes) > LARGEST:
        raise NotApplicableError(
            f"ECLipsE would factorise matrices of {max(sizes)} rows, more than {LARGEST}: use "
            "eclipse_fast"
        )
