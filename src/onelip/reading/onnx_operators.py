"""ONNX's operators on values, by name; each is given its attributes and then its inputs.

Constants come as tensors; missing inputs are None. Attributes are what the format says when they
are left out.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from onelip.activations import Absolute
from onelip.errors import UnboundedModuleError, UsageError
from onelip.norms.convolution import Pair
from onelip.reading import operations as on
from onelip.reading import products, shapes
from onelip.reading.linear import moved, reshaped, expect, zero_sided
from onelip.reading.torch_layers import flattened
from onelip.reading.values import Value

Attributes = dict[str, Any]
Operator = Callable[..., Any]
