"""Certificates of many images, in shards that any number of processes may share.

A shard holds the radii and predictions of a fixed range of images. The last bits of logits depend
on the size of a batch, and may on the number of threads. So boundaries depend neither on the number
of processes nor on what is done already, and each shard is computed in batches of 1024 on one CPU
thread. It is named by a digest of all that its numbers depend on, so that folders of shards can be
copied together, and a shard of something else is never taken for it.
"""

import contextlib
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from onelip._export import export
from onelip.atomic_files import atomic_write
from onelip.certificates import Proved, RadiusProof, certify, radius_proof
from onelip.errors import UsageError
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.experiments.classification.text import format_eps
from onelip.experiments.jobs import Job, LocalExecutor, how_it_ended

SHARD = 16 * 1024
"""Images of a shard; the last one has the rest."""

_BATCH = 1024


@dataclass(frozen=True, eq=False)
class Task:
    """Certification of many images by one network and method.

    Args:
        run: of the network.
        folder: of the shards.
        images: ``(count, ...)`` uint8, in memory or mapped from a file.
        method: name of the method.
        level: of the certificate.
        precision: 32 or 64, the bits in which the exported network runs.
    """

    run: ClassificationFolder
    folder: Path
    images: Any
    method: str
    level: Literal["real", "float"]
    precision: int

    @property
    def ranges(self) -> list[tuple[int, int]]:
        """First image of each shard, and the one after its last."""
        count = len(self.images)
        return [(first, min(first + SHARD, count)) for first in range(0, count, SHARD)]

    @cached_property
    def network(self) -> nn.Module:
        """Exported network, on the CPU."""
        exported = export(self.run.load_model())
        return exported.double() if self.precision == 64 else exported

    @cached_property
    def digest(self) -> str:
        """Digest of network, method and library."""
        about = {
            "network": [self.run.recipe.model, dict(self.run.recipe.network)],
            "modules": repr(self.network),
            "method": [self.method, self.level, self.precision, _BATCH],
            "versions": [metadata.version("onelip"), torch.__version__],
        }
        found = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            found.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
            found.update(_bytes_of(tensor))
        return found.hexdigest()

    def shard(self, first: int, last: int, images: Any = None) -> Path:
        """File of a shard, by a digest of its images and of what certifies them."""
        images = np.array(self.images[first:last]) if images is None else images
        found = hashlib.sha256(f"{self.digest}\0{first}\0{last}\0{images.shape}\0".encode())
        found.update(images.data)
        return self.folder / f"{first:010d}-{found.hexdigest()[:32]}.safetensors"

    @cached_property
    def proof(self) -> RadiusProof:
        """Proof of the radii: its constants are stored once, so that all processes share them."""
        shape = tuple(self.images.shape[1:])
        file = self.folder / f"proof-{self.digest[:32]}.safetensors"
        stored = _read(file, {"pairwise", "bound", "body_bound"})
        if stored is not None:
            return _stored_proof(stored, self.method)
        found = radius_proof(self.method, self.network, shape)
        if type(found) is not RadiusProof:  # it knows more than constants
            return found
        constants = {
            "pairwise": found.pairwise(len(self.run.info.classes)),
            "bound": found.bound,
            "body_bound": found.body_bound,
        }
        _write(file, constants)
        return _stored_proof(constants, self.method)


def task_of(
    run: ClassificationFolder,
    folder: Path,
    *,
    images: Path | None = None,
    data: Path | None = None,
    method: str | None = None,
    level: Literal["real", "float"] = "real",
    precision: int | None = None,
) -> Task:
    """Return the task of certifying a file of images, or the test set of a run.

    Args:
        run: a trained run.
        folder: of the shards; it is made if it is missing.
        images: ``.npy`` file with an array ``(count, channels, height, width)`` of uint8, which is
            never read as a whole; the test set by default.
        data: place of the data set, if it is not the one that the run was trained from.
        method: a name in ``onelip.certificates.METHODS``; that of the recipe by default.
        level: of the certificate.
        precision: 32 or 64, the bits in which the exported network runs; 32 by default.

    Raises:
        UsageError: the images are no such array, or the run is not about images.
    """
    if precision not in (None, 32, 64):
        raise UsageError(f"--precision must be 32 or 64, got {precision}")
    array = (
        run.data(data).test.inputs.numpy() if images is None else _mapped(images, run.info.shape)
    )
    if array.dtype != np.uint8:
        raise UsageError("--shards is for images of 8 bits: onelip certify RUN --out radii.parquet")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be made: {error.strerror}; choose another --shards"
        ) from None
    return Task(run, folder, array, method or run.recipe.certificate, level, precision or 32)


def certify_part(task: Task, part: int = 0, parts: int = 1) -> int:
    """Certify the shards of one part that are missing: every so manyth of all.

    Args:
        task: the images and what certifies them.
        part: from 0 on.
        parts: number of parts.

    Returns:
        How many shards were missing.
    """
    done = 0
    with _one_thread():
        for first, last in task.ranges[part::parts]:
            array = np.array(task.images[first:last])  # once: a mapped file may change
            file = task.shard(first, last, array)
            if _read_shard(file, last - first) is None:
                images = torch.from_numpy(array)
                dtype = torch.float64 if task.precision == 64 else torch.float32
                found = certify(
                    task.network,
                    images.to(dtype).div(255),
                    method=Proved(task.proof),
                    level=task.level,
                    batch_size=_BATCH,
                )
                _write(file, {"radius": found.radius, "prediction": found.prediction})
                done += 1
    return done


def certify_by_workers(task: Task, arguments: list[str], workers: int) -> list[str]:
    """Certify the missing shards by processes of this machine.

    Args:
        task: the images and what certifies them.
        arguments: of the command that certifies a part of the task, without ``--part``.
        workers: number of processes.

    Returns:
        A line for each worker that failed.
    """
    with _one_thread():
        _ = task.proof  # proved once
    executor = LocalExecutor(workers)
    jobs = [
        Job(f"worker {number}", (*arguments, f"--part={number}/{workers}"), log)
        for number in range(1, workers + 1)
        for log in [(task.folder / "logs" / f"worker-{number}.log").resolve()]
    ]
    try:
        statuses = [future.result() for future in executor.start(jobs)]
    finally:
        executor.stop()
    return [
        f"{job.name}: {how_it_ended(job, status)}"
        for job, status in zip(jobs, statuses, strict=True)
        if status
    ]


def merge(task: Task) -> dict[str, Tensor]:
    """Put all shards together, in the order of the images, as ``radii.safetensors``.

    Returns:
        ``radius`` float64 and ``prediction`` int64, one for each image. The radius of an image
        says nothing about its label.

    Raises:
        UsageError: shards are missing.
    """
    shards = [_read_shard(task.shard(first, last), last - first) for first, last in task.ranges]
    missing = sum(shard is None for shard in shards)
    if missing:
        raise UsageError(f"{missing} of {len(shards)} shards are missing: the same command goes on")
    whole = {
        name: torch.cat([shard[name] for shard in shards if shard is not None])
        for name in ("radius", "prediction")
    }
    _write(task.folder / "radii.safetensors", whole)
    return whole


def summary(task: Task, merged: dict[str, Tensor], data: Path | None) -> str:
    """Say how many images are certified at each radius; of the test set, if they are right."""
    recipe, radius = task.run.recipe, merged["radius"]
    right = torch.ones(len(radius), dtype=torch.bool)
    what = "certified, whatever their label"
    if not isinstance(task.images, np.memmap):
        labels = task.run.data(data).test.labels
        right, what = merged["prediction"] == labels, "right and certified"
    lines = [f"{len(radius)} images, method {task.method}, level {task.level}, per cent {what}:"]
    for eps in (0.0, *sorted(recipe.eps)):
        share = float((right & (radius > eps)).double().mean())
        lines.append(f"{format_eps(eps):>8}  {100 * share:.2f}")
    return "\n".join([*lines, f"radii {task.folder / 'radii.safetensors'}"])


def _mapped(path: Path, shape: tuple[int, ...]) -> Any:
    """Map a file of images into memory."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"--images: {path} cannot be read: {reason}") from error
    if array.dtype != np.uint8 or array.shape[1:] != shape or not len(array):
        raise UsageError(
            f"--images: {path} holds {array.dtype} of shape {array.shape}: it must be uint8, "
            f"(count, {', '.join(map(str, shape))})"
        )
    return array


def _stored_proof(stored: dict[str, Tensor], method: str) -> RadiusProof:
    return RadiusProof(
        method=method,
        pairwise=lambda _: stored["pairwise"],
        bound=stored["bound"],
        body_bound=stored["body_bound"],
        layer_bounds=(),
        head="pairwise",
    )


def _read_shard(file: Path, count: int) -> dict[str, Tensor] | None:
    """Read a shard, None if it is missing or damaged."""
    stored = _read(file, {"radius", "prediction"})
    if stored is None or any(tensor.shape != (count,) for tensor in stored.values()):
        return None
    return stored


def _read(file: Path, names: set[str]) -> dict[str, Tensor] | None:
    """Read tensors with these names, None if the file is missing, or not as it was written."""
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            about = (opened.metadata() or {}).get("sha256")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (OSError, safetensors.SafetensorError):
        return None
    return tensors if set(tensors) == names and about == _checksum(tensors) else None


def _write(file: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors; one entry of metadata, for the order of several is not fixed."""
    plain = {name: tensor.detach().cpu().clone() for name, tensor in sorted(tensors.items())}
    with atomic_write(file) as temporary:
        about = {"sha256": _checksum(plain)}
        temporary.write_bytes(safetensors.torch.save(plain, metadata=about))


def _checksum(tensors: dict[str, Tensor]) -> str:
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        found.update(_bytes_of(tensor))
    return found.hexdigest()


def _bytes_of(tensor: Tensor) -> bytes:
    if not math.prod(tensor.shape):
        return b""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Use one CPU thread inside: with more, sums are taken in another order."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
