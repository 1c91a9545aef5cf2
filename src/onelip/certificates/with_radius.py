r"""A network with certified radii in one graph, for programs that know nothing of onelip."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from onelip.certificates._certify import network_for, of_two_logits, refuse_other_function
from onelip.certificates._radius_proof import RadiusProof
from onelip.certificates.batch_independence import refuse_mixed
from onelip.certificates.forward_error import followed
from onelip.certificates.methods import Method, radius_proof
from onelip.chains import Shape
from onelip.errors import NotApplicableError, UsageError
from onelip.forward_error import Computed
from onelip.norms.proved_once import proved_once
from onelip.norms.rounding import UNDERFLOW, upward

_SLACK = 2.0**-48
"""Relative, for roundings in the graph: eight times what four of float64 can add."""
_SHORTEST = 1e-6  # reach, far above what is lost where squares underflow


class Basis(NamedTuple):
    """What the radii of a graph rest on.

    Attributes:
        method: name of the method that proved the constants.
        level: ``"real"`` or ``"float"``, as of a certificate.
        bound: proved Lipschitz bound of the network.
        reach: of level ``"float"``, the length of inputs up to which rounding is counted.
        lost: of level ``"float"``, what a margin pays for rounding.
    """

    method: str
    level: str
    bound: float
    reach: float | None
    lost: float


class WithRadius(nn.Module):
    r"""A network that returns its logits, and the certified radius of each sample.

    With z the logits that it computed, y the largest and C the proved constants of pairs,

    .. math:: r = \min_i (z_y - z_i - m) / (1 + 2^{-48})^2 C_{yi} ,

    in float64, which is not above the exact quotient for C: each of the operations adds a part of
    :math:`2^{-53}` at most. It is 0 for a tie, below :math:`2^{-1000}`, and where a number of the
    input or a logit is infinite or NaN; and at most the largest number there is. At level ``real``
    m is 0, and the radius is never above the one that ``certify`` gives for these logits.

    At level ``float`` e bounds the rounding error of the logits on all inputs up to the length R
    (``forward_error``), and m is :math:`2 \sqrt 2 e`: what a margin can lose at the sample and at
    the attacked input. The radius is at most :math:`R - |x|`, and 0 for longer inputs. It holds for
    what any runtime computes, which may add in whatever order, under the assumptions of
    ``forward_error``, and is below that of level ``real`` for the logits of any other such runtime.

    No number near 0 or 1 is added or multiplied in the graph: optimisers of graphs take
    :math:`1 - 2^{-48}` for 1 and leave the product out.

    Shape: ``(batch, ...)`` to a dictionary of ``logits``, ``(batch, classes)``, and ``radius``,
    ``(batch,)`` in float64. Of a binary network the one logit z has the radius ``|z|`` over its
    constant.

    Args:
        network: an exported network in eval mode.
        constants: ``(classes, classes)`` float64, of pairs of logits; of a binary network those of
            -z and z.
        basis: what the radii rest on.
        terms: numbers in one input.
    """

    constants: Tensor
    lost: Tensor
    rows: Tensor
    largest: Tensor
    infinite: Tensor
    smallest: Tensor
    zero: Tensor
    reach: Tensor

    def __init__(self, network: nn.Module, constants: Tensor, basis: Basis, terms: int) -> None:
        super().__init__()
        self.network, self.basis = network, basis
        known = constants.nan_to_num(nan=math.inf, posinf=math.inf)
        known = torch.where(known > 0, known.clamp(min=UNDERFLOW), known)  # none is flushed
        self.register_buffer("constants", known * (1 + 2 * _SLACK))
        self.register_buffer("lost", torch.full_like(known, basis.lost))
        self.register_buffer("rows", torch.arange(len(constants)))
        # Exporters turn numbers of Python into float32.
        for name, number in _NUMBERS.items():
            self.register_buffer(name, torch.tensor(number, dtype=torch.float64))
        # Shorter by the rounding of the squares, of their sum in any order, and of its root.
        within = (basis.reach or 0.0) * (1 - _SLACK * (terms + 16))
        self.register_buffer("reach", torch.tensor(within, dtype=torch.float64))
        self.eval()

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        """Return logits and radii."""
        logits = self.network(x)
        return {"logits": logits, "radius": self.radius(x, logits)}

    def radius(self, x: Tensor, logits: Tensor) -> Tensor:
        """Return the radius of each sample from the logits that were computed of it."""
        scores, inputs = logits.double(), x.double().flatten(1)
        finite = (scores.abs() <= self.largest).all(1) & (inputs.abs() <= self.largest).all(1)
        if logits.shape[1] == 1:
            scores = torch.cat([-scores, scores], 1)
            finite = finite & (logits.abs().squeeze(1) >= torch.finfo(logits.dtype).tiny)
        prediction = scores.argmax(1)
        margins = scores.amax(1, keepdim=True) - scores
        margins = torch.minimum(margins, self.largest)  # a difference that overflowed
        if self.basis.reach is not None:
            margins = margins - self.lost.index_select(0, prediction)
        quotients = margins / self.constants.index_select(0, prediction)
        quotients = torch.where(margins > self.zero, quotients, self.zero)  # 0 / 0 of a constant
        own = self.rows == prediction.unsqueeze(1)
        radius = torch.where(own, self.infinite, quotients).amin(1)
        radius = torch.minimum(radius, self.largest)  # a quotient that overflowed
        if self.basis.reach is not None:
            room = self.reach - (inputs * inputs).sum(1).sqrt()
            radius = torch.minimum(radius, room)
        return torch.where(finite & (radius >= self.smallest), radius, self.zero)


_NUMBERS = {
    "largest": torch.finfo(torch.float64).max,
    "infinite": math.inf,
    "smallest": UNDERFLOW,
    "zero": 0.0,
}


@torch.no_grad()
@proved_once()
def with_radius(
    model: nn.Module,
    input_shape: Shape,
    *,
    method: Method | str = "product",
    reach: float | None = None,
) -> WithRadius:
    """Put a network and the certified radii of its predictions into one graph.

    Cost: the proved constants, once; at level ``float`` the bound of one forward error. In use, a
    few operations on the logits.

    Args:
        model: an exported network in eval mode, from inputs to logits.
        input_shape: of one input, without the batch.
        method: what proves the constants, as for ``certify``: one that bounds the network for all
            inputs, so neither ``Local`` nor ``HeadCurvature``.
        reach: length of the longest input; with it radii have level ``float``, for inputs in the
            dtype of the weights.

    Raises:
        NotApplicableError: the radii of the method depend on more than the logits.
        UnboundedModuleError: a part of the model has no proved bound, or its rounding is not known.
        UsageError: reach is no length, or the outputs are no logits.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).eval()
        >>> outputs = with_radius(network, (1, 2, 2))(torch.rand(3, 1, 2, 2))
        >>> outputs["logits"].shape, outputs["radius"].shape
        (torch.Size([3, 2]), torch.Size([3]))
    """
    numbers = [n for n in (*model.parameters(), *model.buffers()) if n.is_floating_point()]
    like = numbers[0] if numbers else torch.empty(0)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(3, *input_shape, generator=generator).to(like)
    network = network_for(model, x)
    logits = network(x)
    if logits.ndim != 2 or len(logits) != len(x) or logits.shape[1] < 1:
        raise UsageError(f"outputs of shape {tuple(logits.shape)[1:]} are no logits")
    if torch.finfo(logits.dtype).bits < 32:
        raise UsageError(
            "logits of 16 bits are rounded by more than margins can bear: model.float()"
        )
    refuse_mixed(network, x[:1], logits)
    refuse_other_function(model, network, x, len(x))
    proved = radius_proof(method, of_two_logits(network, x), tuple(input_shape))
    if type(proved) is not RadiusProof:
        raise NotApplicableError(
            f"the radii of {proved.method} depend on more than the logits: take another method for "
            "a graph, as product or liplt"
        )
    classes = max(2, logits.shape[1])
    constants = proved.pairwise(classes).cpu().clone()
    if logits.shape[1] == 1:
        constants *= 2  # of -z and z, where the proof has the halves
    if reach is None:
        basis = Basis(proved.method, "real", float(proved.bound), None, 0.0)
    else:
        if not _SHORTEST <= reach < math.inf:
            raise UsageError(f"reach is the length of the longest input, got {reach}")
        found = followed(model, Computed(tuple(input_shape), reach))[-1]
        # The margin itself is rounded, by a part of 2^-53 of it.
        lost = 2 * math.sqrt(2) * float(found.error) + _SLACK * float(found.reach)
        basis = Basis(proved.method, "float", float(proved.bound), reach, upward(lost, 8))
    return WithRadius(model, constants, basis, math.prod(input_shape)).to(like.device)
