"""Settings of the whole suite."""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # threads that spin slow other processes down

import pytest
import torch

# Small tensors: threads that wait for each other cost more than they give. With OMP_NUM_THREADS=2
# the whole suite runs on two; files on linear algebra ask for them by ``threads`` in any case.
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
torch.set_num_threads(THREADS)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def whole_epochs(monkeypatch):
    """No epoch is cut, so that every session of any length trains one."""
    monkeypatch.setattr("onelip.training.callbacks.TimeLimit.cuts", False)


@pytest.fixture(params=[1, 2], ids=["one-thread", "two-threads"])
def threads(request):
    """Run on this many threads: torch's batched LU is wrong with two (``reference/traps.md``)."""
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(THREADS)
