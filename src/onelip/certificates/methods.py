r"""Methods that prove the radii of a certificate: bounds of the network, or the head's curvature.

For a method that bounds a network, the radius of a sample is the smallest margin divided by the
constant of its pair of logits. Three methods know more: ``Product`` for images of any size uses a
linear head, ``Local`` the sample, and ``Best`` names the method that gave the bound.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from onelip import bounds
from onelip.bounds import Best, BoundMethod, LayerProduct, Local, LogitBounds, Mean, Product
from onelip.certificates._radius_proof import (
    CertificateMethod,
    ForwardPass,
    Found,
    Radii,
    RadiusProof,
    Rounding,
    smallest_quotient,
)
from onelip.certificates.head_curvature.proof import HeadCurvature
from onelip.chains import Chain, Shape
from onelip.errors import UsageError
from onelip.lipschitz import finite
from onelip.reading import Traced, read, readable

Method = BoundMethod | CertificateMethod

METHODS: dict[str, Method] = {**bounds.METHODS, HeadCurvature.name: HeadCurvature()}
"""The methods of ``onelip.bounds``, and those that only certificates have, by name."""


def radius_proof(method: Method | str, model: nn.Module, input_shape: Shape) -> RadiusProof:
    """Prove constants of a model, and the radii that follow.

    Args:
        method: an object, or its name in ``METHODS``.
        model: in eval mode, from inputs to logits.
        input_shape: of one input, without the batch.

    Raises:
        UsageError: no method of that name, or nothing that proves radii.
        UnboundedModuleError: a part of the model has no proved bound.
        NotApplicableError: the method does not cover the model.
    """
    found = _named(method)
    if not isinstance(found, BoundMethod):
        return found.radius_proof(model, input_shape)
    of_type = _SPECIAL.get(type(found), _from_logit_bounds)
    mean = None if type(found) is Local else Mean.of(model)
    if mean is None:
        return of_type(found, model, input_shape)
    share = found.shared(len(mean.networks))
    networks = [readable(network, input_shape) for network in mean.networks]
    return _of_mean(mean, [of_type(share, network, input_shape) for network in networks])


def _of_mean(mean: Mean, proofs: Sequence[RadiusProof]) -> RadiusProof:
    """Proof of a mean of networks: the mean of their constants, pair by pair."""
    several = len(proofs) > 1
    names = (
        (f"{place}.{name}" if several else name, bound)
        for place, proof in enumerate(proofs)
        for name, bound in proof.layer_bounds
    )
    logits = [proof.proof for proof in proofs if proof.proof is not None]
    return RadiusProof(
        method=", ".join(dict.fromkeys(proof.method for proof in proofs)),
        pairwise=lambda classes: mean.constant([proof.pairwise(classes) for proof in proofs]),
        bound=mean.constant([proof.bound for proof in proofs]),
        body_bound=mean.constant([proof.body_bound for proof in proofs]),
        layer_bounds=tuple(names),
        head=proofs[0].head if len({proof.head for proof in proofs}) == 1 else "general",
        proof=mean.logit_bounds(logits) if len(logits) == len(proofs) else None,
    )


def _named(method: Method | str) -> Method:
    """Return a method itself, or the registered one of that name."""
    if isinstance(method, str):
        if method not in METHODS:
            raise UsageError(f"no method {method!r} to certify with; known: {', '.join(METHODS)}")
        return METHODS[method]
    if isinstance(method, BoundMethod) or hasattr(method, "radius_proof"):
        return method
    raise UsageError(
        f"{method!r} proves no radii: give a method of onelip.bounds, as LipLT(), or one of "
        f"{', '.join(METHODS)}"
    )


def _from_logit_bounds(method: BoundMethod, model: nn.Module, input_shape: Shape) -> RadiusProof:
    """Proof from constants of pairs of logits, for any method."""
    chain = read(model, input_shape)
    return RadiusProof(**_of_chain(method.name, chain, method.logit_bounds(chain)))


def _of_chain(name: str, chain: Chain, proof: LogitBounds) -> dict[str, Any]:
    """Return the fields of a proof from constants of pairs of logits."""
    names = (block.name or str(number) for number, block in enumerate(chain.blocks))
    return {
        "method": name,
        "pairwise": lambda _: proof.pairwise,
        "bound": finite(proof.network, "the model"),
        "body_bound": proof.network,
        "layer_bounds": tuple(zip(names, (float(b) for b in proof.layers), strict=True)),
        "head": "pairwise",
        "proof": proof,
    }


def _of_product(method: Product, model: nn.Module, input_shape: Shape) -> RadiusProof:
    """Proof from the product of the layers' bounds and the row distances of a linear head."""
    if not method.any_size or isinstance(model, Traced):
        return _from_logit_bounds(method, model, input_shape)
    found = LayerProduct.of(model)
    return RadiusProof(
        method=method.name,
        pairwise=found.pairwise,
        bound=found.network,
        body_bound=found.body,
        layer_bounds=tuple((name, float(bound)) for name, bound in found.layers),
        head="general" if found.head is None else "pairwise",
    )


def _of_best(method: Best, model: nn.Module, input_shape: Shape) -> RadiusProof:
    """Proof from the smallest bound, with the name of the method that gave it."""
    chain = read(model, input_shape)
    name, proof = method.proved_logits(chain)
    return RadiusProof(**_of_chain(f"{method.name}: {name}", chain, proof))


@dataclass(frozen=True, kw_only=True)
class LocalProof(RadiusProof):
    r"""Proof of a network's radii in balls around the samples.

    With y the prediction, :math:`\tilde z` the logits at x, and :math:`L_i(r)` a bound of how fast
    :math:`z_y - z_i` can fall between x and a point of the ball of radius r around x
    (``Local.from_centre``), for every :math:`x'` with :math:`|x' - x| \le r`

    .. math:: \hat z_y(x') - \hat z_i(x') \ge \tilde z_y(x) - \tilde z_i(x) - m_i
              - L_i(r) |x' - x| ,

    with :math:`m_i` what rounding can take (``smallest_quotient``). Nothing else is compared, so
    constants of two points of the ball are not needed. The radius is the least of r and
    :math:`(\tilde z_y(x) - \tilde z_i(x) - m_i) / L_i(r)` over all rivals i, without those whose
    :math:`z_y - z_i` falls by less than that numerator in the whole ball, and the largest
    over all r that were tried: each is proved by itself. It is 0 where float64 predicts another
    class than the model did.

    Attributes:
        local: the method, with the radii that it tries.
        chain: the network.
    """

    local: Local
    chain: Chain

    def radii(self, batch: ForwardPass) -> Radii:
        """Return radii of a batch; the balls are bounded once for all roundings."""
        cap = self.pairwise(batch.logits.shape[1])
        predicted, balls = batch.prediction.cpu(), list(self.local.balls(self.chain, batch.x, cap))
        known = []
        for ball in balls:
            other = (ball.prediction != predicted)[:, None]
            known.append([part.masked_fill(other, torch.inf) for part in (ball.slopes, ball.falls)])

        def found(rounding: Rounding) -> Found:
            radius: Tensor = torch.zeros(len(predicted), dtype=torch.float64)
            for ball, (slopes, falls) in zip(balls, known, strict=True):
                # The constant holds inside the ball only: the radius cannot exceed the ball's.
                quotient = smallest_quotient(batch, slopes, rounding, falls)
                within = torch.minimum(quotient, ball.radius)
                radius = torch.maximum(radius, within)
            return Found(radius)

        return found


def _of_local(method: Local, model: nn.Module, input_shape: Shape) -> RadiusProof:
    """Proof from local bounds, capped by global constants."""
    chain = read(model, input_shape)
    name = method.name
    if method.inside is not None:
        name += ", inputs in [{:g}, {:g}]".format(*method.inside)
    fields = _of_chain(name, chain, method.everywhere(chain))
    return LocalProof(**fields, local=method, chain=chain)


_SPECIAL: dict[type[BoundMethod], Callable[[Any, nn.Module, Shape], RadiusProof]] = {
    Product: _of_product,
    Local: _of_local,
    Best: _of_best,
}
"""Special cases by exact type: a subclass falls back to its constants of pairs."""
