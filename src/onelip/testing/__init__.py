"""Contract of a Lipschitz module, as tests for any layer.

``check_layer`` runs them all. Each check works in float64 on a copy in eval mode, leaves the layer
alone and raises an ``AssertionError`` that says what was broken. A check can only refute: it
searches for inputs and weights that stretch more than the bound allows; finding none is no proof.

After its weights were overwritten, or training diverged, a layer may refuse to run or to state a
bound, with one of ``REFUSALS``; stating one that is too small it may not. ``check_potential`` does
the same for what a convex potential proves of its curvature. ``hidden_counter_examples`` has
networks that refute certificates which are a little too large, where attacks find nothing.
"""

from onelip.testing.hidden import HiddenCounterExample, hidden_counter_examples
from onelip.testing.layers import (
    check_batch,
    check_copies,
    check_export,
    check_gradient,
    check_layer,
    check_modes,
    check_query,
    check_reading,
    check_stretch,
    check_training,
    check_weights,
)
from onelip.testing.potentials import check_potential
from onelip.testing.searching import REFUSALS, jacobian_norm, largest_stretch

__all__ = [
    "REFUSALS",
    "HiddenCounterExample",
    "check_batch",
    "check_copies",
    "check_export",
    "check_gradient",
    "check_layer",
    "check_modes",
    "check_potential",
    "check_query",
    "check_reading",
    "check_stretch",
    "check_training",
    "check_weights",
    "hidden_counter_examples",
    "jacobian_norm",
    "largest_stretch",
]
