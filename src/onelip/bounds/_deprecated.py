"""Deprecated names of the last release: they still work, warn, and go with the next release."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import Tensor

from onelip.bounds._best import Best, BestReport
from onelip.bounds._eclipse import ECLipsE
from onelip.bounds._liplt import LipLT, Refinement
from onelip.bounds._lipsdp import LipSDP
from onelip.bounds._local import Local, LocalRadius
from onelip.bounds._product import Product
from onelip.bounds.block_product import DEFAULT_WORK
from onelip.bounds.logit_bounds import LogitBounds
from onelip.bounds.method import Network
from onelip.bounds.products.norms import DEFAULT_WORK as MOST_WORK
from onelip.chains import Chain, Shape
from onelip.errors import renamed


def _naive(chain: Chain, *, work: float = DEFAULT_WORK, seconds: float = math.inf) -> Tensor:
    return Product(work=work, seconds=seconds).bound(chain)


def _naive_constants(chain: Chain, *, work: float = DEFAULT_WORK) -> LogitBounds:
    return Product(work=work).logit_bounds(chain)


def _naive_per_class(chain: Chain, *, work: float = DEFAULT_WORK) -> Tensor:
    return _naive_constants(chain, work=work).per_class


def _naive_pairwise(chain: Chain, *, work: float = DEFAULT_WORK) -> Tensor:
    return _naive_constants(chain, work=work).pairwise


def _liplt(
    chain: Chain,
    *,
    work: float = MOST_WORK,
    refinement: Refinement = "spectral",
    seconds: float = math.inf,
) -> Tensor:
    return LipLT(work, refinement, seconds).bound(chain)


def _liplt_constants(
    chain: Chain, *, work: float = MOST_WORK, refinement: Refinement = "spectral"
) -> LogitBounds:
    return LipLT(work, refinement).logit_bounds(chain)


def _liplt_per_class(chain: Chain, *, work: float = MOST_WORK) -> Tensor:
    return _liplt_constants(chain, work=work).per_class


def _liplt_pairwise(chain: Chain, *, work: float = MOST_WORK) -> Tensor:
    return _liplt_constants(chain, work=work).pairwise


def _eclipse(chain: Chain, *, seconds: float | None = None) -> Tensor:
    return ECLipsE(seconds=seconds).bound(chain)


def _eclipse_fast(chain: Chain) -> Tensor:
    return ECLipsE(fast=True).bound(chain)


def _lipsdp(
    chain: Chain,
    multipliers: Literal["neuron", "layer"] = "neuron",
    *,
    seconds: float | None = None,
) -> Tensor:
    return LipSDP(multipliers, seconds).bound(chain)


def _local(chain: Chain, x: Tensor, radius: float | Tensor) -> Tensor:
    return Local().around(chain, x, radius)


def _local_pairwise(chain: Chain, x: Tensor, radius: float | Tensor) -> Tensor:
    return Local().pairwise(chain, x, radius)


def _local_radius(
    chain: Chain, x: Tensor, radii: Sequence[float], labels: Tensor | None = None
) -> LocalRadius:
    return Local(tuple(radii)).radius(chain, x, labels)


def _best(model: Network, input_shape: Shape | None = None, *, seconds: float = 60.0) -> BestReport:
    return Best(seconds).report(model, input_shape)


RENAMED: dict[str, tuple[Callable[..., Any], str]] = {
    "Constants": (LogitBounds, "LogitBounds"),
    "best": (_best, "Best(seconds).report"),
    "eclipse": (_eclipse, "ECLipsE().bound"),
    "eclipse_fast": (_eclipse_fast, "ECLipsE(fast=True).bound"),
    "liplt": (_liplt, "LipLT().bound"),
    "liplt_constants": (_liplt_constants, "LipLT().logit_bounds"),
    "liplt_pairwise": (_liplt_pairwise, "LipLT().logit_bounds(chain).pairwise"),
    "liplt_per_class": (_liplt_per_class, "LipLT().logit_bounds(chain).per_class"),
    "lipsdp": (_lipsdp, "LipSDP().bound"),
    "local": (_local, "Local().around"),
    "local_pairwise": (_local_pairwise, "Local().pairwise"),
    "local_radius": (_local_radius, "Local(radii).radius"),
    "naive": (_naive, "Product().bound"),
    "naive_constants": (_naive_constants, "Product().logit_bounds"),
    "naive_pairwise": (_naive_pairwise, "Product().logit_bounds(chain).pairwise"),
    "naive_per_class": (_naive_per_class, "Product().logit_bounds(chain).per_class"),
}
"""Old name to its replacement, and to the new name that the warning prints."""


def __getattr__(name: str) -> Callable[..., Any]:
    """Return the replacement of an old name, with a warning."""
    if name not in RENAMED:
        raise AttributeError(f"module 'onelip.bounds' has no attribute {name!r}")
    found, new = RENAMED[name]
    renamed(f"onelip.bounds.{name}", f"onelip.bounds.{new}")
    return found
