"""Settings of the whole suite."""

import pytest
import torch

torch.set_num_threads(1)  # small tensors: threads that wait for each other cost more than they give


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
