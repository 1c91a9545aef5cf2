"""Claim: local bounds close a part of the gap between what is certified and what is attacked.

Dense networks on scikit-learn's digits, trained plainly: constants around samples with and without
multipliers, the seconds of one sample, and certified accuracy beside accuracy under PGD. With the
folder of a run of ``onelip train digits`` or ``cpl-mnist`` as argument, the same for its Convex
Potential network at 0.5 or 1.58, on the first images of the test set: every image that the global
constant does not certify and the attacks do not break is tried in the ball of that radius. These
balls are then attacked beyond the pixel range, too.
"""

import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar

import torch
from harness import RESULTS, save
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip.attacks import APGD, PGD, Attack, attack
from onelip.bounds import BoundMethod, LipLT, LipSDP, Local, LogitBounds, Network
from onelip.chains import Chain, Shape
from onelip.data import load
from onelip.experiments.classification.folder import ClassificationFolder
from onelip.reading import read

SIZES = ((64, 32, 32, 32, 32, 32, 10), (64, 100, 100, 10))
Rows = Iterator[dict[str, Any]]

SAMPLES = 24  # of the constants
IMAGES = 150  # of the certificates
TOGETHER = 2  # images of the Convex Potential network between two rows of the record
STRONG: list[Attack] = [PGD(steps=100), APGD(targets=9, steps=100, restarts=2)]  # a rival each
STARTS, STEPS = 2, 60  # of ascents for each rival
RADII = {"digits": 0.5, "mnist": 1.58}


def main() -> None:
    """Every network."""
    if len(sys.argv) > 1:
        folder = ClassificationFolder(Path(sys.argv[1]))
        name = f"local_certificates_{folder.settings.dataset}_run_cpu"
        save(name, _run(folder, RESULTS / f"{name}.json", *sys.argv[2:]))
    else:
        save("local_certificates_dense_cpu", _dense())


def _dense() -> Iterator[dict[str, Any]]:
    for sizes in SIZES:
        model = _trained(sizes)
        x, labels = _digits("test")
        chain = read(model, (64,))
        kind = "x".join(map(str, sizes))
        start = time.process_time()
        found = {"liplt": float(LipLT().bound(chain)), "lipsdp": float(LipSDP().bound(chain))}
        yield {"network": kind, "global": found, "seconds": _since(start, 1)}
        for eps in (0.1, 0.5):
            yield {"network": kind, "eps": eps} | _constants(model, x[:SAMPLES], eps)
        yield {"network": kind} | _certificates(model, x[:100], labels[:100])


def _constants(model: nn.Module, x: Tensor, eps: float) -> dict[str, Any]:
    """Median constants in a ball, and the median ratio of those with and without multipliers."""
    plain, full = Local(units=0, cap=LipLT()), Local(cap=LipLT())
    values, seconds = {}, {}
    for name, method in (("recursion", plain), ("multipliers", full)):
        start = time.process_time()
        values[name] = method.around(model, x, eps)
        seconds[name] = _since(start, len(x))
        start = time.process_time()
        values[f"{name}, from the centre"] = method.from_centre(model, x, eps).amax(1)
        seconds[f"{name}, from the centre"] = _since(start, len(x))
    pairs = plain.pairwise(model, x, eps).amax(1)
    whole = values["multipliers"] / values["recursion"]
    alone = values["multipliers, from the centre"] / pairs
    return {
        "median": {name: round(float(value.median()), 3) for name, value in values.items()},
        "median ratio to the recursion": round(float(whole.median()), 3),
        "median ratio from the centre to any two points": round(float(alone.median()), 3),
        "seconds a sample": seconds,
    }


def _certificates(model: nn.Module, x: Tensor, labels: Tensor) -> dict[str, Any]:
    """Certified accuracy by method, and accuracy under attack, at several radii."""
    methods = {
        "liplt": LipLT(),
        "lipsdp": LipSDP(),
        "local, no multipliers": Local(units=0),
        "local": Local(),
    }
    radii, seconds = {}, {}
    for name, method in methods.items():
        start = time.process_time()
        radii[name] = onelip.certify(model, x, labels, method=method).radius
        seconds[name] = _since(start, len(x))
    shares: dict[str, dict[str, float]] = {}
    for eps in (0.1, 0.2):
        broken = attack(model, x, labels, eps, [PGD(), APGD()]).success
        for radius in radii.values():
            assert not (broken & (radius > eps)).any(), "an attack broke a certified radius"
        certified = {name: _percent(radius > eps) for name, radius in radii.items()}
        shares[str(eps)] = {"attacked": _percent(~broken)} | certified
    return {"accuracy": shares, "seconds a sample": seconds, "images": len(x)}


def _run(folder: ClassificationFolder, path: Path, data: str | None = None) -> Rows:
    """The images of a run that the global constant leaves open, a few at a time.

    A second start goes on where the first was stopped.
    """
    model = onelip.export(folder.load_model()).double().eval()
    dataset = folder.settings.dataset
    test, eps = load(dataset, "test", data), RADII[dataset]
    x, labels = test.inputs[:IMAGES].double() / 255, test.labels[:IMAGES]
    stored = json.loads(path.read_text())["rows"] if path.exists() else []
    known = stored[0] if stored else _open_images(model, x, labels, eps)
    yield known
    done = {row["image"]: row for row in stored if "image" in row}
    chain, left = read(model, tuple(x.shape[1:])), known["open"]
    cap = _Known(LipLT().logit_bounds(chain))
    for first in range(0, len(left), TOGETHER):
        part, start = left[first : first + TOGETHER], time.process_time()
        if any(index not in done for index in part):
            method = Local((eps,), tries=1, cap=cap)
            radius = method.radius(chain, x[part], labels[part]).radius
            seconds = _since(start, len(part))
            for index, found in zip(part, radius.tolist(), strict=True):
                done[index] = {"image": index, "radius": round(found, 4), "seconds": seconds}
        yield from (done[index] for index in part)
    certified = [index for index in left if done[index]["radius"] >= eps]
    fallen = _fallen(model, x[left], labels[left], eps)
    broken = torch.zeros(len(x), dtype=torch.bool)
    broken[torch.tensor(left)[fallen]] = True
    assert not broken[certified].any(), "an attack broke a certified radius"
    beyond, known_ones = int(broken.sum()), round(known["global"] * len(x) / 100)
    yield {
        "eps": eps,
        "local": round(100 * (known_ones + len(certified)) / len(x), 2),
        "attacked beyond the pixel range": round(
            100 * (known_ones + len(left) - beyond) / len(x), 2
        ),
        "share of the gap": round(len(certified) / len(left), 3),
        "share of the gap, attacked beyond": round(len(certified) / (len(left) - beyond), 3),
    }


def _fallen(model: nn.Module, x: Tensor, labels: Tensor, eps: float) -> Tensor:
    """Which images ascent breaks when it may leave [0, 1], as certificates allow: for each rival.

    The attacks of the library stay in [0, 1].
    """
    fallen = torch.zeros(len(x), dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for rival in range(model(x[:1]).shape[1]):
        for start in range(STARTS):
            step = 1e-3 * torch.randn(x.shape, generator=generator, dtype=x.dtype)
            step = step if start == 0 else eps * F.normalize(step.flatten(1), dim=1).view_as(x)
            for _ in range(STEPS):
                step.requires_grad_()
                logits = model(x + step)
                ahead = logits[:, rival] - logits.gather(1, labels[:, None])[:, 0]
                fallen |= (ahead > 0) & (labels != rival)
                (slope,) = torch.autograd.grad(ahead.sum(), step)
                slope = F.normalize(slope.flatten(1), dim=1).view_as(x)
                moved = (step.detach() + 0.2 * eps * slope).flatten(1)
                inside = (eps / moved.norm(dim=1, keepdim=True)).clamp_max(1) * (1 - 1e-12)
                step = (moved * inside).view_as(x)
    return fallen


def _open_images(model: nn.Module, x: Tensor, labels: Tensor, eps: float) -> dict[str, Any]:
    """Accuracy under attack, what the global constant certifies, and the images between."""
    whole = onelip.certify(model, x, labels, method=LipLT()).radius > eps
    broken = torch.zeros_like(whole)
    broken[~whole] = attack(model, x[~whole], labels[~whole], eps, STRONG).success
    shares = {"attacked": _percent(~broken), "global": _percent(whole)}
    left = (~whole & ~broken).nonzero()[:, 0].tolist()
    return {"eps": eps, "images": len(x)} | shares | {"open": left}


@dataclass(frozen=True)
class _Known(BoundMethod):
    """Constants that were proved before."""

    found: LogitBounds
    name: ClassVar[str] = "known"

    def prove(self, chain: Chain) -> Tensor:  # noqa: ARG002
        return self.found.network

    def logit_bounds(self, network: Network, input_shape: Shape | None = None) -> LogitBounds:  # noqa: ARG002
        return self.found


@cache
def _trained(sizes: tuple[int, ...]) -> nn.Sequential:
    """A ReLU network that cross-entropy trained on the digits, in float64."""
    torch.manual_seed(0)
    x, labels = _digits("train")
    parts = [part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), nn.ReLU())]
    model = nn.Sequential(*parts[:-1]).double()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3, weight_decay=1e-4)
    for _ in range(60):
        for batch in torch.randperm(len(x)).split(128):
            optimizer.zero_grad()
            F.cross_entropy(model(x[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval().requires_grad_(False)


def _digits(split: str) -> tuple[Tensor, Tensor]:
    images = load("digits", split, None)
    return images.inputs.double().flatten(1) / 255, images.labels


def _percent(flags: Tensor) -> float:
    return round(100 * float(flags.double().mean()), 2)


def _since(start: float, count: int) -> float:
    return round((time.process_time() - start) / count, 4)


if __name__ == "__main__":
    main()
