"""Settings of the whole suite."""

import functools
import gc
import itertools
import os
import re
import time

# Threads that spin slow other processes down: two of numpy's took 514 s for 8 s on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import pytest
import torch

# Small tensors: threads that wait for each other cost more than they give. With OMP_NUM_THREADS=2
# the whole suite runs on two; files on linear algebra ask for them by ``threads`` in any case.
THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
torch.set_num_threads(THREADS)

# Walks through all that torch, pytest and the collected tests keep took a tenth of the time.
gc.set_threshold(100_000, 20, 20)


def pytest_collection_finish():
    gc.collect()
    gc.freeze()


def pytest_addoption(parser):
    parser.addoption("--quick", action="store_true", help="one case of each test: a minute or so")


@pytest.hookimpl(tryfirst=True)  # before ``-m "not slow"`` is looked at
def pytest_collection_modifyitems(config, items):
    """Mark rows of a family after its first one slow, where each takes long.

    With ``--quick``, keep the first case of each test function, without what trains for seconds.
    """
    known = set()
    for item in items:
        name = getattr(item, "originalname", item.name)
        if (item.path.stem, name) in BY_CLASS:
            kind = (item.path, name, FAMILY.match(item.callspec.id)[0])
            if kind in known:
                item.add_marker(pytest.mark.slow)
            known.add(kind)
    if not config.getoption("--quick"):
        return
    seen, kept, left = set(), [], []
    for item in items:
        name = (item.fspath, getattr(item, "originalname", item.name))
        long = any(part in item.nodeid for part in LONG)
        (left if name in seen or long else kept).append(item)
        seen.add(name)
    config.hook.pytest_deselected(items=left)
    items[:] = kept


FAMILY = re.compile(r"(?:[A-Z]+(?=Conv|Linear))|\w+?(?=Conv|Linear|-|$)|\w+")
"""Family of a row: that of ``BCOPConv1d``, ``BCOPConv2d-stride`` is ``BCOP``."""

BY_CLASS = {
    ("test_compile", "test_compiled_in_one_graph"),
    ("test_compile", "test_exported_as_a_program"),
    ("test_rebuilt_layers", "test_every_layer_from_a_program_file"),
    ("test_exporters", "test_layers_by_the_new_exporter"),
    ("test_orthogonium", "test_contract"),
    ("test_orthogonium", "test_contract_after_export"),
    ("test_deel_torchlip", "test_contract"),
}
"""Tests of one row of each family; all rows with ``-m slow``."""

LONG = (
    "test_cli",
    "test_compile",
    "test_datasets",
    "test_evaluate",
    "test_loading",
    "test_radii",
    "test_mutations",
    "test_nonsense",
    "test_exporters",
    "test_save",
    "test_singular_values",
    "test_training_step",
    "test_wgan",
    "experiments/classification",
    "thousand",
    "without_gradients",
)
"""Parts of names of what takes seconds."""


@pytest.fixture(autouse=True)
def _seed():
    torch.default_generator.manual_seed(0)  # torch.manual_seed also records the call stack


@pytest.fixture
def each(request):
    """Go through a grid within one test: the first point alone with ``--quick``.

    The numbers drawn at a point do not depend on the others, and a failure prints where it was.
    """
    at = []

    def points(grid):
        for point in itertools.islice(grid, 1 if request.config.getoption("--quick") else None):
            torch.default_generator.manual_seed(0)
            at.append(point)
            yield point
            at.pop()

    yield points
    if at:
        print(f"stopped at {at[0]!r}")


@pytest.fixture
def clock(monkeypatch):
    """Seconds that are counted: time moves when it is asked for, on any machine alike."""
    asked, measured = itertools.count(), itertools.count()
    monkeypatch.setattr(time, "monotonic", lambda: next(asked) / 100)
    monkeypatch.setattr(time, "perf_counter", lambda: next(measured) / 10_000)


@pytest.fixture
def whole_epochs(monkeypatch):
    """No epoch is cut, so that every session of any length trains one."""
    monkeypatch.setattr(
        "onelip.experiments.classification.training.callbacks.TimeLimit.cuts", False
    )


@pytest.fixture(params=[1, 2], ids=["one-thread", "two-threads"])
def threads(request):
    """Run on this many threads: torch's batched LU is wrong with two (``reference/traps.md``)."""
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(THREADS)


@pytest.fixture(scope="session")
def onnx_registry_once():
    """Translations of all operators, built once and not at each export, where it takes 2 / 3."""
    from torch.onnx._internal.exporter._registration import ONNXRegistry

    build = staticmethod(functools.cache(ONNXRegistry.from_torchlib))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ONNXRegistry, "from_torchlib", build)
        yield
