"""Networks as chains of blocks ``H x + G phi(W x)``, and the linear maps that they are made of."""

from onelip.chains.chain import (
    Block,
    Chain,
    Elementwise,
    GroupSorting,
    Nonlinearity,
    Opaque,
    Split,
    transformed,
)
from onelip.chains.linear_map import (
    Composition,
    Convolution,
    Dense,
    Gather,
    GroupMean,
    LinearMap,
    Reshape,
    Scale,
    Shape,
    Sum,
    composed,
    identity,
)

__all__ = [
    "Block",
    "Chain",
    "Composition",
    "Convolution",
    "Dense",
    "Elementwise",
    "Gather",
    "GroupMean",
    "GroupSorting",
    "LinearMap",
    "Nonlinearity",
    "Opaque",
    "Reshape",
    "Scale",
    "Shape",
    "Split",
    "Sum",
    "composed",
    "identity",
    "transformed",
]
