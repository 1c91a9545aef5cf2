"""Bundles: a network, its constants and certificates, in files that a separate program checks."""

import hashlib
import json
import math
import os
import shutil
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from onelip.chains import Chain
from onelip.checker import check
from onelip.errors import NotApplicableError, UsageError
from onelip.proofs.claims import hexadecimal
from onelip.proofs.graph import Record, network_record, norm_of_records
from onelip.proofs.tensors import TensorStore

TENSORS, PROOF = "tensors.safetensors", "proof.json"


def prove(
    chain: Chain, folder: str | Path, x: Tensor | None = None, *, about: str = ""
) -> dict[str, Any]:
    """Write a bundle, and check it before it gets its name.

    Args:
        chain: the network.
        folder: of the bundle; it must not exist.
        x: samples, ``(batch, *chain.inputs)``, whose radii are certified, in float32 or float64.
        about: a word on where the network comes from.

    Returns:
        What was written to ``proof.json``.

    Raises:
        UsageError: the folder exists, or the samples do not fit.
        NotApplicableError: a part of the network has no proof in this format, or the checker does
            not accept it.
    """
    folder = Path(folder)
    if folder.exists():
        raise UsageError(f"{folder} exists: a bundle is never overwritten")
    store = TensorStore()
    network = network_record(chain, store)
    bound = _product([*(block["bound"] for block in network["blocks"])])
    bound *= norm_of_records(network["last"])
    samples = None
    if x is not None:
        if tuple(x.shape[1:]) != chain.inputs or not len(x):
            raise UsageError(f"samples of shape {chain.inputs} are asked, got {tuple(x.shape)}")
        samples = _samples(chain, network, x, store)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        safetensors.torch.save_file(store.tensors, temporary / TENSORS)
        record: Record = {
            "format": "onelip proof",
            "version": 1,
            "level": "real",
            "about": about,
            "files": {TENSORS: hashlib.sha256((temporary / TENSORS).read_bytes()).hexdigest()},
            "input": list(chain.inputs),
            "network": network,
            "bound": hexadecimal(bound * (1 + 1e-13)),
            "samples": samples,
        }
        (temporary / PROOF).write_text(json.dumps(record, indent=1))
        try:
            check.check(temporary, say=lambda _: None)
        except check.Invalid as error:
            raise NotApplicableError(f"the checker does not accept the proof: {error}") from error
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return record


def _samples(chain: Chain, network: Record, x: Tensor, store: TensorStore) -> Record:
    """Predictions and radii, with room for what the checker does not see of the last bits."""
    exact = chain.exact()
    with torch.no_grad():
        logits = torch.cat([exact.forward(part.double()) for part in x.split(256)]).flatten(1)
    body = _product([block["bound"] for block in network["blocks"]])
    last = network["last"]
    pairs = bool(last) and last[-1]["map"] == "dense"
    if pairs:
        rows = store.tensors[last[-1]["weight"]].double()
        factor = body * norm_of_records(last[:-1])
        between = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist") * factor
    else:
        count = logits.shape[1]
        between = torch.full((count, count), math.sqrt(2) * body * norm_of_records(last))
    prediction = logits.argmax(1)
    margins = logits.gather(1, prediction[:, None]) - logits
    lost = SLACK * float(logits.abs().max().clamp_min(1.0))
    radii = (margins - lost).clamp_min(0) / (between[prediction] * (1 + 2.0**-30))
    radii = radii.scatter(1, prediction[:, None], math.inf).amin(1)
    return {
        "inputs": store.add("samples", x),
        "predictions": prediction.tolist(),
        "radii": [hexadecimal(radius) for radius in radii],
        "head": "pairs" if pairs else "network",
    }


SLACK = 2.0**-20


def _product(bounds: list[str]) -> float:
    return math.prod(float.fromhex(bound) for bound in bounds)
