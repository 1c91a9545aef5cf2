"""The contract: what a module must say about its Lipschitz constant, and how to ask.

A module proves its constant in one of two ways: as a ``LipschitzModule``, by a method, or as one
of torch's own modules, by a record kept in ``RECORDS`` under its exact type. Anything else is
refused.
All constants are with respect to the Euclidean norm of the flattened input and output.
"""

from onelip.lipschitz import torch_modules as _torch_modules
from onelip.lipschitz._bound import bound_of_part, lipschitz_bound
from onelip.lipschitz._read import read_module
from onelip.lipschitz._through import rounding_of, through
from onelip.lipschitz.guards import (
    finite,
    refuse_complex,
    refuse_hidden_behaviour,
    refuse_moving_weights,
)
from onelip.lipschitz.inheritance import overridable, refuse_inherited
from onelip.lipschitz.module import LipschitzModule
from onelip.lipschitz.records import LIBRARIES, RECORDS, ModuleRecord, Rule, record_of, rule
from onelip.lipschitz.unknown_classes import has_unknown_class, unwrapped

__all__ = [
    "LIBRARIES",
    "RECORDS",
    "LipschitzModule",
    "ModuleRecord",
    "Rule",
    "bound_of_part",
    "finite",
    "has_unknown_class",
    "lipschitz_bound",
    "overridable",
    "read_module",
    "record_of",
    "refuse_complex",
    "refuse_hidden_behaviour",
    "refuse_inherited",
    "refuse_moving_weights",
    "rounding_of",
    "rule",
    "through",
    "unwrapped",
]
del _torch_modules
