"""The methods that ``Best`` tries, and everything else has by name."""

from onelip.bounds._eclipse import ECLipsE
from onelip.bounds._exact import Exact
from onelip.bounds._liplt import LipLT
from onelip.bounds._lipsdp import LipSDP
from onelip.bounds._local import Local
from onelip.bounds._product import Product
from onelip.bounds.method import BoundMethod

SINGLE_METHODS: tuple[BoundMethod, ...] = (
    Product(),
    ECLipsE(fast=True),
    ECLipsE(),
    LipSDP(),
    Exact(),
    LipLT(),
    LipSDP("layer"),
    Local(),
)
"""The one table of them, in the order in which ``Best`` tries them."""
