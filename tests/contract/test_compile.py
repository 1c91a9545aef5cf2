"""Every layer through ``torch.compile``, ``torch.export`` and on a device that holds no numbers.

Every row is traced into one graph; the first row of each class also through AOTAutograd, whose
time grows with the number of operations and whose operations are those of the other rows.
``ONELIP_BACKEND=inductor`` (``make test-inductor``) compiles all of them to machine code instead.
``meta`` tensors prove that no layer hides a tensor on another device, and
that none asks one for a truth value.
"""

import copy
import os

import pytest
import torch
from torch import nn

from tests.cases import LAYERS, Case

BACKEND = os.environ.get("ONELIP_BACKEND")
FIRST_OF_CLASS = {case.id.partition("-")[0]: case for case in reversed(LAYERS)}.values()


def built(case: Case) -> nn.Module:
    torch.manual_seed(0)
    return case.build().double()


def batch(case: Case, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(count, *case.input_shape, dtype=torch.float64, generator=generator)


def gradients(run, module: nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """The outputs, and the gradients of the input and of every parameter that has one."""
    x = x.clone().requires_grad_()
    y = run(x)
    if y.requires_grad:
        generator = torch.Generator().manual_seed(2)
        y.backward(torch.randn(y.shape, dtype=y.dtype, generator=generator))
    parts = [x, *module.parameters()]
    return [y.detach(), *(part.grad for part in parts if part.grad is not None)]


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.id)
def test_compiled_in_one_graph(case: Case):
    """In training mode, forward and backward."""
    torch._dynamo.reset()
    module = built(case).train()
    other = copy.deepcopy(module)
    expected = gradients(module, module, batch(case))
    backend = BACKEND or ("aot_eager" if case in FIRST_OF_CLASS else "eager")
    compiled = torch.compile(other, backend=backend, fullgraph=True)
    found = gradients(compiled, other, batch(case))
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.id)
def test_exported_as_a_program(case: Case):
    """In eval mode, with a dynamic batch."""
    module = built(case).eval()
    dynamic = {0: torch.export.Dim("batch", min=1, max=64)}
    program = torch.export.export(module, (batch(case),), dynamic_shapes=(dynamic,))
    for count in (1, 3):
        x = batch(case, count)
        assert torch.allclose(program.module()(x), module(x), atol=1e-12)


@pytest.mark.parametrize("case", LAYERS, ids=lambda case: case.id)
def test_without_numbers(case: Case):
    """Both modes, forward and backward, on ``meta``."""
    expected = built(case).eval()(batch(case)).shape
    for training in (True, False):
        module = built(case).train(training).to("meta")
        x = batch(case).to("meta").requires_grad_()
        y = module(x)
        assert y.device.type == "meta"
        assert y.shape == expected
        if y.requires_grad:
            y.sum().backward()
            assert all(p.grad is None or p.grad.is_meta for p in module.parameters())
