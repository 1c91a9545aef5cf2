"""Nonlinearities as records of ``proof.json``, with their slopes as the checker takes them."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from onelip import layers
from onelip.chains import Block, Elementwise, GroupSorting, Opaque
from onelip.chains.linear_layers import taking
from onelip.errors import NotApplicableError
from onelip.proofs.claims import ROOM, hexadecimal
from onelip.proofs.elementwise import Written, elementwise_record, identity_record
from onelip.proofs.maps import Record, map_records
from onelip.proofs.pools import pool_record
from onelip.proofs.tensors import TensorStore
from onelip.proofs.volumes import transposed


def activation_record(block: Block, store: TensorStore, place: str) -> Written:
    """The nonlinearity of a block.

    Raises:
        NotApplicableError: it has no record in this format.
    """
    kind, module = block.nonlinearity, block.nonlinearity.module
    found: Written | None = None
    if isinstance(kind, GroupSorting) and isinstance(module, layers.MaxMin | layers.GroupSort):
        down = isinstance(module, layers.MaxMin)
        found = Written({"kind": "sort", "size": kind.size, "descending": down}, (-1.0, 1.0))
    if isinstance(kind, Elementwise):
        found = elementwise_record(block, store, place)
    if isinstance(kind, Opaque):
        found = _opaque(module, block, store, place)
    if found is None:
        raise NotApplicableError(
            f"no proof of {type(module).__name__} can be written yet ({place})"
        )
    return found


def _opaque(module: Any, block: Block, store: TensorStore, place: str) -> Written | None:
    """A map of which chains know the constant alone."""
    if type(module) is layers.FixedFourierConv2d:
        before = _fourier(module, block, store, place)
        return Written(identity_record(store, place), (1.0, 1.0), before)
    linear = transposed(module, block.inner.outputs, block.hidden)
    if linear is not None:
        before = map_records(linear, store, place)
        return Written(identity_record(store, place), (1.0, 1.0), before)
    return _plane(module, store, place) or pool_record(module, block, store, place)


def _plane(module: Any, store: TensorStore, place: str) -> Written | None:
    """Folds of pairs of channels, and distances to curves; None for any other map."""
    tensors: dict[str, Tensor] = {}
    if type(module) is layers.Householder:
        kind, theta = "fold", module.theta.detach().double() / 2
        rays, more = theta[: module.order], theta[module.order :]
        tensors = {"rays": rays, "peaks": torch.cat([rays[:1], rays[:1] + more])}
    elif type(module) is layers.ProjectionPool2d:
        kind, tensors = "rays", {"angles": module.theta}
    elif type(module) is layers.CurvePool2d:
        kind, tensors = "polygon", {"corners": module.corners}
    else:
        return None
    names = {name: store.add(f"{place}.{name}", tensor) for name, tensor in tensors.items()}
    return Written({"kind": kind} | names, (-1.0, 1.0))


def _fourier(
    module: layers.FixedFourierConv2d, block: Block, store: TensorStore, place: str
) -> list[Record]:
    """A matrix for each frequency, with pixels of a stride as channels before."""
    before, inputs, stride = [], block.inner.outputs, module.stride
    if stride > 1:
        numbers = torch.arange(block.inner.rows).view(1, *inputs)
        pixels = F.pixel_unshuffle(numbers, stride)[0]
        before = map_records(taking(inputs, pixels.shape, pixels.flatten()), store, place)
    weight = torch.view_as_real(module.weight.detach().resolve_conj())
    norms = torch.linalg.matrix_norm(module.weight.detach().cpu().to(torch.cdouble), 2)
    return [
        *before,
        {
            "map": "fourier",
            "norm": hexadecimal(norms.max() * ROOM),
            "weight": store.add(f"{place}.weight", weight),
            "bias": None if module.bias is None else store.add(f"{place}.bias", module.bias),
        },
    ]
