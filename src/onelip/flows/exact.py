r"""Exact flow of a skew part, by the truncated series of its exponential.

:math:`\dot u = A u` takes x to :math:`e^{h A} x` in time h (Meunier et al., 2022, section 3.3). A
truncated series is not orthogonal; its norm is bounded by a proved norm of :math:`h A` and the
number of terms (``norms/exponential.py``): by 1 up to :math:`\|h A\| = 3.37` for 13 terms. The
remainder of the series is at most :math:`\|h A\|^{13} / 13!\; e^{\|h A\|}`.
"""

import copy

import torch
from torch import Tensor, nn

from onelip.flows.skew import SkewConv2d, SkewLinear, SkewPart, proved_norm
from onelip.flows.step import checked_step, step_of
from onelip.layers.skew_exponential import FixedSOCConv2d
from onelip.lipschitz import LipschitzModule
from onelip.norms.exponential import truncated_exponential
from onelip.norms.rounding import upward


class ExactFlow(LipschitzModule):
    r"""``sum_{j < terms} (h A)^j x / j!``: the flow of ``A x`` over the time h.

    Bound: the largest ``|sum_{j < terms} (i theta)^j / j!|`` with theta up to the proved ``h |A|``;
    exactly 1 for 13 terms up to ``h |A| = 3.37``. For longer times, take several steps.
    Shape: that of the skew part.
    Cost: ``terms - 1`` calls of the skew part.

    Args:
        skew: A; its parameters are this layer's.
        step: the time h.
        terms: number of terms of the series, counting the identity.

    Raises:
        ValueError: a step that is not positive, or fewer than 2 terms.

    Example:
        >>> import onelip
        >>> from onelip.flows import SkewLinear
        >>> onelip.lipschitz_bound(ExactFlow(SkewLinear(4), 0.5))
        tensor(1., dtype=torch.float64)

    Reference: Singla, Feizi, "Skew orthogonal convolutions", ICML 2021.
    """

    def __init__(self, skew: SkewPart, step: float = 1.0, *, terms: int = 13) -> None:
        super().__init__()
        if terms < 2:
            raise ValueError(f"a series of {terms} terms has no A in it: terms=5 or more")
        self.skew, self.fixed_step, self.terms = skew, checked_step(step), terms

    def forward(self, x: Tensor) -> Tensor:
        """Return the series ``sum_j (h A)^j x / j!``, by Horner's rule."""
        step, z = step_of(self, self.fixed_step), x
        for j in range(self.terms - 1, 0, -1):
            z = x + step * self.skew(z) / j
        return z

    def lipschitz_bound(self) -> Tensor:
        """Proved bound, by the formula in the class docstring."""
        step = step_of(self, self.fixed_step).to("cpu", torch.float64)
        return truncated_exponential(upward(step * proved_norm(self.skew), 1), self.terms)

    @torch.no_grad()
    def export(self) -> nn.Module:
        """Return a plain linear layer, a ``FixedSOCConv2d``, or a copy for other skew parts."""
        skew = self.skew
        if type(skew) is SkewLinear:
            twin = copy.deepcopy(self).double()
            # the images of the unit vectors, as rows: the transposed matrix of the map
            rows = twin(torch.eye(len(skew.weight), dtype=torch.float64, device=skew.weight.device))
            return skew.plain(rows.T.to(skew.weight.dtype))
        if type(skew) is not SkewConv2d:
            return copy.deepcopy(self)
        return FixedSOCConv2d(
            step_of(self, self.fixed_step) * skew.kernel(),
            None,
            len(skew.weight),
            len(skew.weight),
            padding_mode=skew.padding_mode,
            image_size=skew.image_size,
            terms=self.terms,
        )

    def extra_repr(self) -> str:
        """Time and number of terms."""
        return f"step={self.fixed_step}, terms={self.terms}"
