"""What is refused names the reason that there is, and a way out that works."""

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, prune

import onelip
from onelip.errors import UnboundedModuleError, UsageError
from onelip.layers import ConvexPotentialLinear


def refused(module: nn.Module, match: str) -> None:
    for query in (onelip.lipschitz_bound, onelip.export):
        with pytest.raises(UnboundedModuleError, match=match):
            query(module)


def test_a_compiled_model():
    model = nn.Linear(3, 3)
    compiled = torch.compile(model, backend="eager")
    assert torch.equal(onelip.lipschitz_bound(compiled), onelip.lipschitz_bound(model))
    assert type(onelip.export(compiled)) is nn.Linear
    with pytest.raises(UnboundedModuleError, match=r"compiled forward: .* model\._orig_mod"):
        onelip.lipschitz_bound(nn.Sequential(compiled))
    model.compile(backend="eager")  # in place: the same module, the same function
    assert onelip.lipschitz_bound(model).isfinite()


def test_a_pruned_layer():
    layer = prune.l1_unstructured(nn.Linear(3, 3), "weight", 0.5)
    refused(layer, r"a pruned weight: .*prune\.remove\(part, 'weight'\)")
    prune.remove(layer, "weight")
    assert onelip.lipschitz_bound(layer).isfinite()


def test_hooks_and_patches():
    layer = nn.Linear(3, 3)
    handle = layer.register_forward_hook(lambda module, inputs, output: None)
    refused(layer, r"a forward hook, .*handle\.remove\(\)")
    handle.remove()
    layer.forward = lambda x: 2 * x
    refused(layer, "a patched method, forward")
    old = torch.nn.utils.weight_norm(nn.Linear(3, 3))
    refused(old, r"WeightNorm: use torch\.nn\.utils\.parametrizations instead")
    new = parametrizations.weight_norm(nn.Linear(3, 3)).eval()
    assert onelip.lipschitz_bound(new).isfinite()


def test_a_slice_of_an_exported_network_is_certified():
    """Slicing makes a new nn.Sequential, whose own mode changes nothing."""
    body = nn.Sequential(ConvexPotentialLinear(4, 6), nn.Linear(4, 3), nn.Dropout())
    proved = onelip.export(body)
    assert proved[:-1].training
    assert onelip.certify(proved[:-1], torch.rand(2, 4)).radius.shape == (2,)
    body.eval()
    body[2].train()
    with pytest.raises(UsageError, match=r"part of it \(Dropout\), is in training mode"):
        onelip.certify(body, torch.rand(2, 4))


def test_complex_networks():
    layer = nn.Linear(3, 2, dtype=torch.cfloat)
    largest = torch.linalg.matrix_norm(layer.weight.detach().to(torch.complex128), 2)
    assert float(onelip.lipschitz_bound(layer)) >= float(largest) * (1 - 1e-12)
    model = nn.Sequential(layer).eval()
    for query in (
        lambda: onelip.bounds.Best(seconds=1).report(model, (3,)),
        lambda: onelip.certify(model, torch.rand(2, 3)),
        lambda: onelip.reading.read(model, (3,)),
    ):
        with pytest.raises(UnboundedModuleError, match=r"0\.weight is complex"):
            query()


@pytest.mark.parametrize("level", ["real", "float"])
def test_no_samples(level):
    proved = onelip.export(nn.Sequential(ConvexPotentialLinear(4, 6), nn.Linear(4, 3)))
    found = onelip.certify(proved.double(), torch.rand(0, 4).double(), level=level)
    assert found.radius.shape == found.prediction.shape == (0,)
