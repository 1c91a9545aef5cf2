"""Bundles: a network, its constants and certificates, in files that a separate program checks."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from onelip._export import export
from onelip._save import save
from onelip.chains import Chain, Shape
from onelip.checker import check
from onelip.errors import NotApplicableError, UsageError
from onelip.proofs.claims import hexadecimal
from onelip.proofs.executions import faithful
from onelip.proofs.files import outline
from onelip.proofs.graph import body_constant, network_record
from onelip.proofs.inside import KEY, as_text, digest_of, write_inside
from onelip.proofs.maps import Record, norm_of_records
from onelip.proofs.multipliers import with_multipliers
from onelip.proofs.rounding import with_rounding
from onelip.proofs.samples import samples_record
from onelip.proofs.tensors import TensorStore
from onelip.reading import Predictor, load, read

TENSORS, PROOF = "tensors.safetensors", "proof.json"
METHODS, LEVELS = ("product", "lipsdp"), ("real", "float")
_DTYPES = torch.float32, torch.float64


def prove(
    model: Predictor,
    folder: str | Path,
    x: Tensor | None = None,
    *,
    input_shape: Shape | None = None,
    method: str = "product",
    seconds: float | None = None,
    formats: Sequence[str] = (),
    level: str = "real",
    about: str = "",
    trust: bool = False,
) -> dict[str, Any]:
    """Write a bundle that convinces without onelip, and check it before it gets its name.

    The bundle holds the network as tensors and ``proof.json``, a bound of its Lipschitz constant,
    and for each sample a prediction and a radius. ``onelip check``, which imports nothing of
    onelip, computes all of it again in exact integers. The file of a network is copied into the
    bundle, under its digest.

    At level ``real`` radii are about the function of real numbers. At level ``float`` they hold for
    the exported network as it runs in the dtype of its weights, whatever the order of its sums: in
    float64 for ``onelip.export(model, accumulate=torch.float64)``, which costs float32 next to
    nothing. That is for sequences of layers whose records are their operations.

    Bound: the product of norms, block by block; with ``method="lipsdp"`` what LipSDP's multipliers
        show of a plain dense network, which is far less for one that nobody constrained.
    Cost: the singular values of each map, the same in exact integers, and an exact forward pass.

    Args:
        model: a module, whose export is proved, an exported program, or a ``.pt2`` or ``.onnx``
            file.
        folder: of the bundle; it must not exist.
        x: samples in float32 or float64, in the units that the network takes.
        input_shape: of one input, where there are no samples; files know theirs.
        method: ``"product"`` or ``"lipsdp"``.
        seconds: for the search of LipSDP.
        formats: ``"pt2"`` and ``"onnx"``, to put what ``onelip.save`` writes beside the proof, with
            the bound and a digest of the network inside; at level ``real``.
        level: ``"real"`` or ``"float"``.
        about: a word on where the network comes from.
        trust: open parts of a ``.pt2`` file that may run code.

    Returns:
        The content of ``proof.json``.

    Raises:
        UsageError: the folder exists, or the samples do not fit.
        NotApplicableError: a part of the network has no proof in this format, or the checker does
            not accept it; nothing is written.

    Example:
        >>> import tempfile, torch, onelip
        >>> net = nn.Sequential(onelip.layers.UnitNormLinear(4, 2)).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     record = prove(net, Path(folder) / "bundle", torch.rand(3, 4))
        >>> len(record["samples"]["radii"])
        3
    """
    folder = Path(folder)
    if folder.exists():
        raise UsageError(f"{folder} exists: a bundle is never overwritten")
    for value, known in ((method, METHODS), (level, LEVELS)):
        if value not in known:
            raise UsageError(f"nothing is known of {value!r}: proofs go by {' or '.join(known)}")
    shape = tuple(x.shape[1:]) if x is not None else input_shape
    more = bool(formats) or method != "product"
    if level == "real":
        chain, kind = _chain(model, shape, trust), None
    else:
        chain, kind = _executed(model, shape, more)
    _check_samples(x, chain, kind)
    store = TensorStore()
    network = network_record(chain, store)
    product = body_constant(network) * norm_of_records(network["last"]) * (1 + 1e-13)
    tries: Iterator[tuple[Record, float]] = iter([(network, product)])
    tries = with_multipliers(chain, network, store, seconds) if method == "lipsdp" else tries
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}")
    temporary.mkdir(parents=True)
    try:
        if isinstance(model, str | Path):
            shutil.copyfile(model, temporary / f"network{Path(model).suffix.lower()}")
        for suffix in formats:
            if not isinstance(model, nn.Module):
                raise UsageError("formats are for modules: a file is copied as it is")
            save(model, temporary / f"network.{suffix}", chain.inputs)
        refused, digest = "", digest_of(outline(network, store.tensors))
        for record, bound in tries:
            claims = {"network": digest, "bound": hexadecimal(bound), "level": "real"}
            for suffix in formats:
                write_inside(temporary / f"network.{suffix}", claims)
            content = {
                "format": "onelip proof",
                "version": 1,
                "level": kind or "real",
                "about": about,
                "input": list(chain.inputs),
                "network": record,
                "bound": hexadecimal(bound),
                "samples": None if x is None else samples_record(chain, record, bound, x, store),
            }
            content |= with_rounding(content, store.tensors)
            refused = _written(temporary, content, store, claims)
            if not refused:
                temporary.rename(folder)
                return content
        raise NotApplicableError(f"the checker does not accept the proof: {refused}")
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _check_samples(x: Tensor | None, chain: Chain, level: Record | None) -> None:
    """Refuse samples that are none of this network."""
    if x is None:
        return
    if tuple(x.shape[1:]) != chain.inputs or not len(x) or x.dtype not in _DTYPES:
        raise UsageError(
            f"samples of shape {chain.inputs} in float32 or float64 are asked, got "
            f"{tuple(x.shape)} in {x.dtype}"
        )
    if not torch.isfinite(x).all():
        raise UsageError("a sample is infinite or NaN")
    dtype = getattr(torch, level["numbers"]) if level else x.dtype
    if not torch.equal(x.to(dtype).double(), x.double()):
        raise UsageError(f"samples are no numbers of {dtype}, in which the network runs")


def _written(folder: Path, content: Record, store: TensorStore, claims: dict[str, str]) -> str:
    """Write a bundle and check it; empty, or the checker's reason."""
    (folder / PROOF).unlink(missing_ok=True)
    inside = {KEY: as_text(claims)}
    (folder / TENSORS).write_bytes(safetensors.torch.save(store.tensors, inside))
    content["files"] = {path.name: _digest(path) for path in sorted(folder.iterdir())}
    (folder / PROOF).write_text(json.dumps(content, indent=1))
    try:
        check.check(folder, say=lambda _: None)
    except (check.Invalid, ValueError, MemoryError) as error:
        return str(error) or type(error).__name__
    return ""


def _chain(model: Predictor, shape: Shape | None, trust: bool) -> Chain:
    """The network as a chain; a module's exported form."""
    if isinstance(model, str | Path):
        return load(model, trust=trust)
    if shape is None:
        raise UsageError("samples, or the shape of one input, are asked")
    return read(export(model) if isinstance(model, nn.Module) else model, shape)  # type: ignore[arg-type]


def _executed(model: Predictor, shape: Shape | None, more: bool) -> tuple[Chain, Record]:
    """The network as a chain of its operations, and the record of level float."""
    if not isinstance(model, nn.Module):
        raise NotApplicableError(
            "level float is for modules: a file may be executed with other operations"
        )
    if more:
        raise NotApplicableError("level float is for the product of norms, without files beside it")
    _chain(model, shape, trust=False)  # a shape that does not fit has its word there
    assert shape is not None
    network, level = faithful(export(model), shape)
    return read(network, shape), level


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
