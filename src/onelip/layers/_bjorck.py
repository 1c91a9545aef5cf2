r"""Dense layers with an orthogonal weight (Anil, Lucas, Grosse, ICML 2019)."""

import abc
from functools import partial
from typing import Unpack

from torch import Tensor
from typing_extensions import override

from onelip.layers.constrained import ConstrainedLinear
from onelip.layers.options import FactoryOptions
from onelip.layers.orthogonal import OrthogonalLayer, bjorck, cholesky_qr, oriented, tall


class _OrthogonalLinear(OrthogonalLayer, ConstrainedLinear):
    """Base of the dense layers with an orthogonal weight."""

    @abc.abstractmethod
    def __init__(
        self, in_features: int, out_features: int, bias: bool, **factory: Unpack[FactoryOptions]
    ) -> None:
        super().__init__(in_features, out_features, bias, **factory)
        self.raw_weight = tall(out_features, in_features, **factory)

    @override
    def free_matrices(self) -> list[Tensor]:
        return [self.raw_weight]

    @override
    def assemble(self, matrices: list[Tensor]) -> Tensor:
        return oriented(matrices[0][0], self.out_features, self.in_features)


class BjorckLinear(_OrthogonalLinear):
    r"""``Q x + b`` with Q near the polar factor of a free matrix, by Bjorck's iteration.

    Bound: the proved norm of Q after the given number of iterations.
    Shape: ``(*, in_features)`` to ``(*, out_features)``.
    Cost: ``iterations`` times two products ``n m^2``, m the smaller side. ``CholeskyLinear`` spans
    the same matrices at a fraction of it.

    Args:
        in_features: size of the input.
        out_features: size of the output.
        bias: whether to add b.
        iterations: number of Bjorck steps, of order 1.
        **factory: ``device`` and ``dtype`` of the parameters.

    Example:
        >>> import onelip
        >>> layer = BjorckLinear(8, 4)
        >>> bool(abs(onelip.lipschitz_bound(layer) - 1) < 1e-5)
        True

    Reference: Anil, Lucas, Grosse, "Sorting out Lipschitz function approximation", ICML 2019.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        *,
        iterations: int = 20,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__(in_features, out_features, bias, **factory)
        self.orthogonalise = partial(bjorck, iterations=iterations)


class CholeskyLinear(_OrthogonalLinear):
    r"""``Q x + b`` with Q the orthogonal factor of a QR factorisation, from a Cholesky factor.

    Bound: the proved norm of Q; 1 up to rounding.
    Shape: ``(*, in_features)`` to ``(*, out_features)``.
    Cost: ``2 n m^2 + m^3 / 3`` multiplications, m the smaller side.

    Args:
        in_features: size of the input.
        out_features: size of the output.
        bias: whether to add b.
        **factory: ``device`` and ``dtype`` of the parameters.

    Example:
        >>> import onelip
        >>> bool(abs(onelip.lipschitz_bound(CholeskyLinear(8, 4)) - 1) < 1e-5)
        True

    Reference: Hu et al., "A recipe for improved certifiable robustness", ICLR 2024.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        **factory: Unpack[FactoryOptions],
    ) -> None:
        super().__init__(in_features, out_features, bias, **factory)
        self.orthogonalise = cholesky_qr
