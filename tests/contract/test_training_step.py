"""A training step is known by its weights: forward passes that are repeated repeat their numbers.

Gradient checkpointing runs ``forward`` again in the backward pass. A layer that took a power step
each time differentiated another function than it had computed: gradients off by 2 to 68 %, 56 times
for SOC with fresh weights.
"""

import copy
import os
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import onelip
from onelip import layers
from onelip.layers import computed_once
from onelip.layers.constrained import PowerSteps, checksum
from tests.cases import CASES, Case

POWERED = [case for case in CASES if isinstance(case.build(), PowerSteps)]


def batch(case: Case, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(3, *case.input_shape, dtype=torch.float64, generator=generator)


def built(case: Case) -> nn.Module:
    """In training mode, unless the module refuses it, after a change of the weights."""
    torch.manual_seed(0)
    module = case.build().double().train()
    if not module.state_dict():
        return module
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module


def gradients(module: nn.Module, x: torch.Tensor, run) -> list[torch.Tensor]:
    x = x.clone().requires_grad_()
    torch.manual_seed(1)  # dropout
    y = run(module, x)
    generator = torch.Generator().manual_seed(1)
    (y * torch.randn(y.shape, dtype=y.dtype, generator=generator)).sum().backward()
    return [x.grad, *(p.grad for p in module.parameters() if p.grad is not None)]


def same(found: list[torch.Tensor], expected: list[torch.Tensor]) -> bool:
    """To 1e-6 of the largest number."""
    return len(found) == len(expected) and all(
        float((a - b).abs().max()) <= 1e-6 * float(b.abs().max())
        for a, b in zip(found, expected, strict=True)
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_checkpointing(case: Case):
    """Both modes, in float64; and the state of the layer afterwards is that without."""
    module = built(case)
    plain, outside = copy.deepcopy(module), copy.deepcopy(module)
    expected = gradients(plain, batch(case), lambda m, x: m(x))
    for reentrant in (False, True):
        other = copy.deepcopy(module)
        found = gradients(other, batch(case), partial(checkpoint, use_reentrant=reentrant))
        assert same(found, expected)
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            continue  # which counts its batches twice
        for key, value in other.state_dict().items():
            assert torch.allclose(value, plain.state_dict()[key], rtol=1e-12, atol=0), key
    with computed_once(outside):
        found = gradients(outside, batch(case), partial(checkpoint, use_reentrant=False))
    assert same(found, expected)


def test_forward_passes_repeat_until_the_weights_change(each):
    for case in each(POWERED):
        module = built(case)
        x = batch(case)
        first = module(x)
        state = copy.deepcopy(module.state_dict())
        assert torch.equal(module(x), first)
        with computed_once(module):
            assert torch.allclose(module(x), first, rtol=1e-12, atol=1e-12)
        assert all(torch.equal(value, state[key]) for key, value in module.state_dict().items())
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.add_(1e-4 * torch.randn_like(parameter))
        module(x)
        moved = [k for k, v in module.state_dict().items() if "direction" in k and v.numel() > 1]
        projected = isinstance(module, layers.ProjectedOSSNConv2d)
        taken = getattr(module, "fixed_step", None) is None and not projected
        for key in moved:
            assert torch.equal(module.state_dict()[key], state[key]) is not taken


def test_a_direction_never_stops_tracking():
    """One singular value grows across the others: ``|W d|`` stays, the weights do not."""
    layer = layers.ConvexPotentialLinear(8, 8).train()
    layer.weight.data = torch.diag(torch.tensor([2.0] + [1.0] * 7))
    layer.power_step(10)
    for _ in range(100):
        layer(torch.randn(2, 8))
        layer.weight.data[1, 1] *= 1.03
    assert float(onelip.lipschitz_bound(layer)) < 1.1


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("relative", [1e-2, 1e-5, 3e-7])
def test_any_change_is_a_step_and_no_change_is_none(relative, dtype):
    """However small: passes are repeated to the last bit, alone and batched."""
    model = nn.Sequential(*(layers.ConvexPotentialConv2d(4, 6, image_size=6) for _ in range(3)))
    model = model.to(dtype).train()
    x = torch.randn(2, 4, 6, 6).to(dtype)
    for _ in range(20):
        first = model(x)
        before = [layer.direction.clone() for layer in model]
        assert torch.equal(model(x), first)
        with computed_once(model):
            model(x)
        after = [layer.direction for layer in model]
        assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
        for layer in model:
            layer.weight.data *= 1 + relative * torch.randn_like(layer.weight)
            if relative > 1e-3:
                assert bool(layer.changed())
                layer.forget()


def test_the_checksum_of_a_weight():
    weight = torch.randn(3, 4, 2)
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64):
        cast = weight.to(dtype)
        same = checksum(cast.clone().permute(2, 1, 0).contiguous().permute(2, 1, 0))
        assert torch.equal(checksum(cast), same)
        for other in (cast.flip(0), torch.nextafter(cast.float(), torch.tensor(9.0)).to(dtype)):
            if not torch.equal(other, cast):
                assert not torch.equal(checksum(cast), checksum(other))


def test_the_checksum_is_the_same_in_every_way_to_compute_it():
    """Compiled, and where memory is not aligned for two numbers at a time."""
    numbers = torch.randn(601)
    for columns in (20, 15):
        weight = numbers[: 20 * columns].view(20, columns).clone()
        expected = checksum(weight)
        shifted = torch.cat([torch.zeros(1), weight.flatten()])[1:].view(20, columns)
        assert shifted.storage_offset() == 1
        assert torch.equal(checksum(shifted), expected)
        compiled = torch.compile(checksum, backend="aot_eager", fullgraph=True)
        assert torch.equal(compiled(weight), expected)
        assert torch.equal(torch.func.vmap(checksum)(weight[None])[0], expected)


def test_two_forward_passes_before_one_backward_pass_and_accumulation(each):
    for case in each(POWERED):
        module = built(case)
        first, second = batch(case, 0), batch(case, 1)
        together, summed = copy.deepcopy(module), copy.deepcopy(module)
        y, z = together(first), together(second)
        (y.square().sum() + z.square().sum()).backward()
        summed(first).square().sum().backward()
        summed(second).square().sum().backward()
        whole = copy.deepcopy(module)
        whole(torch.cat([first, second])).square().sum().backward()
        for a, b, c in zip(
            together.parameters(), summed.parameters(), whole.parameters(), strict=True
        ):
            assert torch.allclose(a.grad, b.grad, rtol=1e-9, atol=1e-12)
            assert torch.allclose(a.grad, c.grad, rtol=1e-9, atol=1e-12)


def test_an_unused_estimate_is_taken_up_by_old_checkpoints(each):
    """Runs of before did not store what the last power step was taken for."""
    for case in each(POWERED):
        module = case.build()
        state = {key: value for key, value in module.state_dict().items() if key != "known"}
        module.load_state_dict(state)
        assert (module.known == -1).all()


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        layers.ConvexPotentialConv2d(2, 3, image_size=4),
        layers.SOCConv2d(2, 2, 3),
        layers.OSSNConv2d(2, 2, 3, image_size=4),
        nn.Flatten(),
        layers.ConvexPotentialLinear(32, 8),
    ).double()


def _trained(model: nn.Module, run, steps: int = 4) -> list[torch.Tensor]:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        x = torch.randn(4, 2, 4, 4, dtype=torch.float64, generator=generator)
        optimizer.zero_grad()
        (run(x) ** 2).sum().backward()
        optimizer.step()
    return [p.detach().clone() for p in model.parameters()]


def test_training_with_every_way_to_run_it():
    """Checkpointing part by part, ``torch.compile``, the batch in two halves: the same weights."""
    plain, parts, compiled, halves = (_model() for _ in range(4))
    expected = _trained(plain, plain)

    def by_parts(x: torch.Tensor) -> torch.Tensor:
        for part in parts:
            x = checkpoint(part, x, use_reentrant=False)
        return x

    ways = {
        "parts": _trained(parts, by_parts),
        "compile": _trained(compiled, torch.compile(compiled, backend="aot_eager", fullgraph=True)),
        "halves": _trained(halves, lambda x: torch.cat([halves(x[:2]), halves(x[2:])])),
    }
    for name, found in ways.items():
        assert same(found, expected), name


def _distributed(rank: int, port: int) -> None:
    os.environ.update(MASTER_ADDR="localhost", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    plain = _model()
    expected = _trained(plain, plain)
    for run in (nn.Module.__call__, partial(checkpoint, use_reentrant=False)):
        model = _model()
        call = partial(run, DistributedDataParallel(model))
        # DDP takes means over the processes, where the loss is a sum
        found = _trained(model, lambda x, call=call: 2**0.5 * call(x[2 * rank : 2 * rank + 2]))
        assert same(found, expected), run
    dist.destroy_process_group()


def test_training_on_two_processes():
    port = 20000 + os.getpid() % 20000
    torch.multiprocessing.spawn(_distributed, args=(port,), nprocs=2)


def test_forgetting_leaves_the_device_alone():
    """``known`` is made where the weights are, also after the layer has moved."""
    layer = layers.ConvexPotentialLinear(4, 6).to("meta")
    layer.forget()
    assert layer.known.is_meta
