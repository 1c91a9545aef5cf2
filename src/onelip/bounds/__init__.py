"""Proved upper bounds of the Lipschitz constants of whole networks.

Every function takes a ``Chain`` (``onelip.reading.read(model, input_shape)``) and returns float64
numbers that are never below the exact constants of the network with its weights as stored: the
rounding of the computation itself is added. ``best`` tries them all.
"""

from onelip.bounds.best import Best, Tried, best
from onelip.bounds.composed import norm_of
from onelip.bounds.differences import Constants
from onelip.bounds.eclipse import eclipse, eclipse_fast
from onelip.bounds.liplt import liplt, liplt_constants, liplt_pairwise, liplt_per_class
from onelip.bounds.lipsdp import lipsdp
from onelip.bounds.local import LocalRadius, local, local_pairwise, local_radius
from onelip.bounds.naive import naive, naive_constants, naive_pairwise, naive_per_class

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
