"""Files of a network beside its proof: whether onelip reads the same network from them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import Tensor

from onelip.chains import Chain
from onelip.errors import NotApplicableError, OnelipError
from onelip.proofs.graph import network_record
from onelip.proofs.inside import digest_of, read_inside
from onelip.proofs.maps import Record
from onelip.proofs.tensors import TensorStore
from onelip.reading import load

_CLAIMS = ("norm", "bound", "witness", "method")
_SHIFTS = {"bias", "shift"}


def compared(bundle: Path) -> dict[str, str]:
    """For each file of a network in a bundle, empty if it is the network of the proof, or why not.

    The file is read by onelip, whose reader is trusted here, and its maps are compared with those
    of ``proof.json`` one by one, tensors bit by bit.
    """
    content = json.loads((bundle / "proof.json").read_text())
    tensors = safetensors.torch.load_file(bundle / "tensors.safetensors")
    wanted = outline(content["network"], tensors)
    found = {}
    for path in sorted(bundle.glob("network.*")):
        try:
            found[path.name] = difference(load(path), wanted) or _claims(path, content, wanted)
        except OnelipError as error:
            found[path.name] = f"cannot be read: {error}"
    return found


def _claims(path: Path, content: Record, wanted: list[Any]) -> str:
    """What is wrong with the claims inside a file of the network; empty if nothing is."""
    claims = read_inside(path)
    if claims and claims.get("network") != digest_of(wanted):
        return "the claims inside are those of another network"
    if claims and claims.get("bound") != content["bound"]:
        return "the bound inside is not that of the proof"
    return ""


def difference(chain: Chain, wanted: list[Any]) -> str:
    """Where a network differs from an outline; empty if it does not."""
    store = TensorStore()
    try:
        record = network_record(chain, store)
    except NotApplicableError as error:
        return str(error)
    found = outline(record, store.tensors)
    for place, (one, other) in enumerate(zip(found, wanted, strict=False)):
        if one != other:
            return f"part {place} is {_kind(one)}, in the proof {_kind(other)}"
    same = len(found) == len(wanted)
    return "" if same else f"it has {len(found)} parts, the proof {len(wanted)}"


def outline(network: Record, tensors: dict[str, Tensor]) -> list[Any]:
    """The parts of a network without claims, tensors by their digest."""
    parts = [*network["blocks"], *({"last": record} for record in network["last"])]
    return [_without_claims(part, tensors) for part in parts]


def _without_claims(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if k not in _CLAIMS}
        for shift in _SHIFTS & kept.keys():  # files leave out what adds 0
            if kept[shift] is not None and not tensors[kept[shift]].any():
                kept[shift] = None
        return {k: _without_claims(v, tensors) for k, v in kept.items()}
    if isinstance(value, list):
        return [_without_claims(item, tensors) for item in value]
    if isinstance(value, str) and value in tensors:
        tensor = tensors[value]
        wide = tensor.double() if tensor.is_floating_point() else tensor.long()
        digest = hashlib.sha256(wide.contiguous().numpy().tobytes()).hexdigest()
        return [list(tensor.shape), digest]
    return value


def _kind(part: Any) -> str:
    """A word for a part: the kinds of its maps."""
    maps = [*part.get("inner", []), *(part.get("outer") or [])] or [part["last"]]
    return " and ".join(record["map"] for record in maps)
