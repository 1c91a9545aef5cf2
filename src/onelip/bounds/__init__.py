"""Proved upper bounds of the Lipschitz constants of whole networks.

Every function takes a ``Chain`` (``onelip.reading.read(model, input_shape)``) and returns float64
numbers that are never below the exact constants of the network with its weights as stored: the
rounding of the computation itself is added. ``best`` tries them all.
"""

from onelip.bounds._best import Best, Tried, best
from onelip.bounds._eclipse import eclipse, eclipse_fast
from onelip.bounds._liplt import liplt, liplt_constants, liplt_pairwise, liplt_per_class
from onelip.bounds._lipsdp import lipsdp
from onelip.bounds._local import LocalRadius, local, local_pairwise, local_radius
from onelip.bounds._product import naive, naive_constants, naive_pairwise, naive_per_class
from onelip.bounds.logit_constants import Constants
from onelip.bounds.products.norms import norm_of

__all__ = [
    "Best",
    "Constants",
    "LocalRadius",
    "Tried",
    "best",
    "eclipse",
    "eclipse_fast",
    "liplt",
    "liplt_constants",
    "liplt_pairwise",
    "liplt_per_class",
    "lipsdp",
    "local",
    "local_pairwise",
    "local_radius",
    "naive",
    "naive_constants",
    "naive_pairwise",
    "naive_per_class",
    "norm_of",
]
