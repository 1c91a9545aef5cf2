"""Proved upper bounds of the Lipschitz constants of whole networks.

One frozen object per method: ``LipLT().bound(model, input_shape)`` is a float64 number that is
never below the exact constant of the network with its weights as stored: the rounding of the
computation itself is added. ``METHODS`` holds them by name; ``Best`` tries them all.
"""

from onelip.bounds._best import Best, BestReport, Tried
from onelip.bounds._deprecated import __getattr__ as __getattr__
from onelip.bounds._eclipse import ECLipsE
from onelip.bounds._exact import Exact
from onelip.bounds._liplt import LipLT
from onelip.bounds._lipschitz_bound import lipschitz_bound
from onelip.bounds._lipsdp import LipSDP
from onelip.bounds._local import Local, LocalBounds, LocalRadius
from onelip.bounds._product import Product
from onelip.bounds.averages import Mean
from onelip.bounds.layer_product import LayerProduct
from onelip.bounds.logit_bounds import LogitBounds
from onelip.bounds.method import BoundMethod, Network
from onelip.bounds.products.norms import norm_of
from onelip.bounds.registry import METHODS, bound_method, estimated

__all__ = [
    "METHODS",
    "Best",
    "BestReport",
    "BoundMethod",
    "ECLipsE",
    "Exact",
    "LayerProduct",
    "LipLT",
    "LipSDP",
    "Local",
    "LocalBounds",
    "LocalRadius",
    "LogitBounds",
    "Mean",
    "Network",
    "Product",
    "Tried",
    "bound_method",
    "estimated",
    "lipschitz_bound",
    "norm_of",
]
