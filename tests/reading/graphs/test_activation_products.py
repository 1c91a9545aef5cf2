"""Products that are an activation, and those that only look like one."""

import pytest
import torch
import torch.nn.functional as F

from onelip.errors import UnboundedModuleError
from tests.reading.checks import traced


@pytest.mark.parametrize("beta", [0.1, 10.0])
def test_a_mish_of_another_softplus(beta):
    with pytest.raises(UnboundedModuleError, match="product of two values"):
        traced(lambda x: x * torch.tanh(F.softplus(x, beta=beta)))
    with pytest.raises(UnboundedModuleError, match="jump"):
        traced(lambda x: torch.where(x > 20.0, x, F.softplus(x, beta=beta)))
