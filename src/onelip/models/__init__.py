"""Networks of the papers, as functions that hold their numbers."""

from onelip.models.convex_potential import (
    convex_potential_network,
    cpl_digits,
    cpl_l,
    cpl_m,
    cpl_mnist,
    cpl_s,
    cpl_xl,
)

MODELS = {
    "cpl_digits": cpl_digits,
    "cpl_mnist": cpl_mnist,
    "cpl_s": cpl_s,
    "cpl_m": cpl_m,
    "cpl_l": cpl_l,
    "cpl_xl": cpl_xl,
}
"""Every model by name, for recipes and the command line."""

__all__ = [
    "MODELS",
    "convex_potential_network",
    "cpl_digits",
    "cpl_l",
    "cpl_m",
    "cpl_mnist",
    "cpl_s",
    "cpl_xl",
]
