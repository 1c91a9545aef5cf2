"""The contract: what a module must say about its Lipschitz constant, and how to ask.

A module proves its constant in one of two ways: as a ``LipschitzModule``, by a method, or as one
of torch's own modules, by a rule kept in ``RULES`` under its exact type. Anything else is refused.
All constants are with respect to the Euclidean norm of the flattened input and output.
"""

from onelip.lipschitz import torch_modules as _torch_modules
from onelip.lipschitz._bound import bound_of_part, finite, lipschitz_bound
from onelip.lipschitz.guards import (
    refuse_complex,
    refuse_hidden_behaviour,
    refuse_moving_weights,
)
from onelip.lipschitz.inheritance import overridable, refuse_inherited
from onelip.lipschitz.module import LipschitzModule
from onelip.lipschitz.rules import LIBRARIES, RULES, Rule, of_library, rule
from onelip.lipschitz.torch_modules import MOVES

__all__ = [
    "LIBRARIES",
    "MOVES",
    "RULES",
    "LipschitzModule",
    "Rule",
    "bound_of_part",
    "finite",
    "lipschitz_bound",
    "of_library",
    "overridable",
    "refuse_complex",
    "refuse_hidden_behaviour",
    "refuse_inherited",
    "refuse_moving_weights",
    "rule",
]
del _torch_modules
