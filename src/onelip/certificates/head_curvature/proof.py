r"""Certificates of an MLP head on a Lipschitz network (Singla, Feizi, 2022, Proposition 1).

If the body g is L-Lipschitz and the head keeps its prediction in a ball of radius R around the
features g(x), the network keeps it in a ball of radius R / L around x. The head's radius needs no
Lipschitz constant of the head: it comes from its curvature, rival by rival.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from onelip.bounds import LayerProduct, LipLT
from onelip.bounds.head_curvature import Curvature, TwoLayers
from onelip.bounds.layer_product import flattened, is_linear, without_accumulation
from onelip.certificates._radius_proof import ForwardPass, Found, Radii, RadiusProof, Rounding
from onelip.certificates.head_curvature.radii import head_radii, joined
from onelip.chains import Shape
from onelip.errors import UsageError
from onelip.forward_error import largest
from onelip.layers import MLPHead
from onelip.lipschitz import finite
from onelip.norms.rounding import downward, product, upward

_TOGETHER = 512  # samples with one slack


@dataclass(frozen=True, kw_only=True)
class CurvatureProof(RadiusProof):
    """Proved constants of a network that ends in an MLP head.

    Attributes:
        layers: the head.
        curvature: curvature of the head, proved pair by pair on first use.
        slopes: ``(classes, classes)``, Lipschitz constants of the head's differences of logits.
    """

    layers: TwoLayers
    curvature: Curvature
    slopes: Tensor

    def radii(self, batch: ForwardPass) -> Radii:
        """Return the head's radii, divided by the bound of the body."""
        return lambda rounding: self._found(batch, rounding)

    def _found(self, batch: ForwardPass, rounding: Rounding) -> Found:
        """Radii for one rounding: the features' error is taken off before the division."""
        seen = rounding.seen(batch)
        slack = torch.as_tensor(rounding.margins, dtype=torch.float64)
        slack = slack.amax(1) if slack.ndim else slack.expand(len(seen.x))
        # Samples that lose about as much go together: each pays for the worst of its group.
        order = slack.argsort().cpu()
        at_once = _TOGETHER if rounding.nearer is not None else max(1, len(order))
        parts = [
            head_radii(
                self.layers,
                seen.features[rows.to(seen.features.device)],
                seen.prediction[rows.to(seen.prediction.device)],
                self.curvature,
                self.slopes,
                slack=largest(slack[rows]),
            )
            for rows in order.split(at_once)
        ]
        found = joined(parts, order.argsort())
        # The known features may be off: the exact ones lie in a ball of that radius around them.
        off = torch.as_tensor(rounding.features, dtype=torch.float64).to(found.radius.device)
        left = downward((found.radius - off).clamp_min(0), 1)
        radius = downward(left / self.body_bound.to(left.device), 1)
        return Found(torch.where(left > 0, radius, 0.0), found)  # 0 / 0 after a constant body


@dataclass(frozen=True)
class HeadCurvature:
    """Curvature certificate of an MLP head on a body with a product bound.

    Bound: each radius of the head is proved from a quadratic that stays below the difference of two
    logits; the radius is valid whatever point the search ends at.
    Cost: the bounds of the body, two proofs of curvature per class, and one per pair of classes
    that limits a sample (``onelip.bounds.head_curvature``).

    Example:
        >>> import torch
        >>> from onelip import certify, layers
        >>> model = nn.Sequential(nn.Flatten(), layers.MLPHead(4, 3, hidden=8)).eval()
        >>> certificate = certify(model, torch.rand(5, 1, 2, 2), method=HeadCurvature())
        >>> certificate.method, certificate.head
        ('curvature', 'mlp')
    """

    name: ClassVar[str] = "curvature"

    def radius_proof(self, model: nn.Module, input_shape: Shape) -> CurvatureProof:  # noqa: ARG002
        """Prove the constants of a model that ends in an MLP head.

        Args:
            model: a Sequential that ends in ``layers.MLPHead``, or in ``nn.Linear``, an activation
                whose derivative is continuous, and ``nn.Linear``.
            input_shape: of an image; it is not needed.

        Raises:
            UsageError: the model ends otherwise.
            UnboundedModuleError: the activation has a kink, or nothing is proved of a part of the
                body.
        """
        inner, activation, outer = plain = mlp_head(model)
        count = 1 if type(flattened(model)[-1][1]) is MLPHead else 3
        bounded = LayerProduct.of(model)
        factors = [bound for _, bound in bounded.layers]
        body = finite(product(factors[:-count]), "the body")
        layers = TwoLayers.of(inner, activation, outer)
        curvature = Curvature(layers)
        slopes = LipLT().logit_bounds(nn.Sequential(*plain), (inner.weight.shape[1],)).pairwise
        return CurvatureProof(
            method=self.name,
            pairwise=lambda _: upward(slopes * body, 1),
            bound=bounded.network,
            body_bound=body,
            layer_bounds=tuple((name, float(bound)) for name, bound in bounded.layers),
            head="mlp",
            layers=layers,
            curvature=curvature,
            slopes=slopes,
            head_parts=count,
        )


def mlp_head(model: nn.Module) -> tuple[nn.Linear, nn.Module, nn.Linear]:
    """Return the two linear layers at the end of a network, and the activation between them.

    Raises:
        UsageError: it ends otherwise.
    """
    parts = [part for _, part in flattened(model)]
    last = parts[-1] if parts else None
    if type(last) is MLPHead:
        return last.parts()
    if len(parts) >= 3:
        inner, activation, outer = map(without_accumulation, parts[-3:])
        if is_linear(inner) and is_linear(outer):
            return inner, activation, outer
    ends = ", ".join(type(part).__name__ for part in parts[-3:])
    raise UsageError(
        "a curvature certificate needs a network that ends in layers.MLPHead, or in nn.Linear, an "
        f"activation and nn.Linear; this one ends in {ends}: certify it with method='product', in "
        "a recipe certificate=product"
    )
