r"""MNIST at the l2 radius 1.58: an orthogonal dense network, trained on the Stiefel manifold.

Three numbers, in per cent of test images that are right and certified beyond 1.58: by constants of
pairs of logits, which hold for all inputs; by local bounds among valid images, whose pixels stay in
[0, 1] (``onelip.bounds.Local(inside=(0, 1))``); and right under attack by valid images.

    python mnist158.py train --data FOLDER --seed 0 --out RUN       # resumes where it was stopped
    python mnist158.py certify --data FOLDER RUN --part 0/2         # also resumes; several parts
    python mnist158.py collect RUN ... --out RECORD

The clock counts processor seconds. ``--held-out`` trains on 55,000 images and looks at 5,000
others, to choose by.
"""

import argparse
import itertools
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip.attacks import APGD, PGD, Attack, attack
from onelip.bounds import LipLT, Local
from onelip.certificates import Proved, radius_proof
from onelip.layers import HalfAbs, UnitNormLinear

EPS = 1.58
WIDTH, DEPTH = 512, 4
BATCH, RATE, HEAD_RATE, WARM, MOMENTUM = 512, 0.06, 3e-3, 0.1, 0.95
EPSILON, TEMPERATURE = 1.8, 0.5  # of the loss
ATTACKS: list[Attack] = [PGD(steps=100), APGD(targets=9, steps=100)]
BEYOND = EPS * (1 + 1e-5)  # a ball that shows more than EPS


def network() -> nn.Sequential:
    """Orthogonal matrices and absolute values of half of the features."""
    sizes = [784] + [WIDTH] * DEPTH
    parts: list[nn.Module] = [nn.Flatten()]
    for before, after in itertools.pairwise(sizes):
        linear = nn.Linear(before, after)
        nn.init.orthogonal_(linear.weight)
        nn.init.zeros_(linear.bias)
        parts += [linear, HalfAbs(after)]
    return nn.Sequential(*parts, UnitNormLinear(WIDTH, 10))


def closer(weight: Tensor) -> Tensor:
    """One step of Newton and Schulz towards the nearest matrix with orthonormal rows."""
    nearer: Tensor = 1.5 * weight - 0.5 * (weight @ weight.mT) @ weight
    return nearer


def direction(momentum: Tensor) -> Tensor:
    """A matrix with the singular vectors of another one, all of its singular values about 1.

    Muon's polynomial (Jordan et al., 2024), in bfloat16: an approximation is enough here.
    """
    m: Tensor = momentum.bfloat16() / (momentum.norm() + 1e-7)
    for _ in range(5):
        square = m @ m.mT
        m = 3.4445 * m + (-4.7750 * square + 2.0315 * square @ square) @ m
    return m.float()


class Manifold:
    """Muon on wide matrices with orthonormal rows: steps along the manifold, and back to it."""

    def __init__(self, weights: list[Tensor]) -> None:
        self.weights = weights
        self.momenta = [torch.zeros_like(weight) for weight in weights]

    @torch.no_grad()
    def step(self, rate: float) -> None:
        """Move all weights."""
        for weight, momentum in zip(self.weights, self.momenta, strict=True):
            assert weight.grad is not None
            w, gradient = weight.bfloat16(), weight.grad
            cross = gradient.bfloat16() @ w.mT
            gradient = gradient - (((cross + cross.mT) / 2) @ w).float()  # tangent
            momentum.lerp_(gradient, 1 - MOMENTUM)
            weight.sub_(direction(torch.lerp(gradient, momentum, MOMENTUM)), alpha=rate)
            weight.copy_(closer(weight))

    @torch.no_grad()
    def finish(self) -> None:
        """Make rows orthonormal in float64, and round them once."""
        for weight in self.weights:
            exact = weight.double()
            for _ in range(4):
                exact = closer(exact)
            weight.copy_(exact)


def split(data: Path, held_out: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels to train on, and others."""
    known = onelip.data.load("mnist", "train", data)
    if not held_out:
        test = onelip.data.load("mnist", "test", data)
        return known.inputs, known.labels, test.inputs, test.labels
    order = torch.randperm(60_000, generator=torch.Generator().manual_seed(1))
    kept, others = order[:55_000], order[55_000:]
    return known.inputs[kept], known.labels[kept], known.inputs[others], known.labels[others]


def minibatches(images: Tensor, labels: Tensor, shift: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless minibatches of pixels in [0, 1], each image moved by chance; zeros come in."""
    while True:
        for rows in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            x = images[rows].float().squeeze(1) / 255
            if shift:
                padded = F.pad(x, (shift,) * 4)
                down, right = torch.randint(2 * shift + 1, (2, BATCH, 1)) + torch.arange(28)
                x = padded[torch.arange(BATCH)[:, None, None], down[:, :, None], right[:, None]]
            yield x[:, None], labels[rows]


def train(options: argparse.Namespace) -> None:
    """Train until the clock is over; a checkpoint every five minutes."""
    options.out.mkdir(parents=True, exist_ok=True)
    checkpoint, seconds = options.out / "state.pt", 60 * options.minutes
    torch.manual_seed(options.seed)
    images, labels, *_ = split(options.data, options.held_out)
    model = network()
    head = model[-1]
    assert isinstance(head, UnitNormLinear)
    linear = [part for part in model if type(part) is nn.Linear]
    manifold = Manifold([part.weight for part in linear])
    rest = [*(part.bias for part in linear), *head.parameters()]
    adam = torch.optim.Adam(rest, lr=HEAD_RATE, betas=(0.9, 0.99))
    loss = onelip.losses.LipschitzMargin(options.epsilon, TEMPERATURE)
    steps, before = 0, 0.0
    if checkpoint.exists():
        stored = torch.load(checkpoint)
        model.load_state_dict(stored["model"])
        adam.load_state_dict(stored["adam"])
        manifold.momenta = stored["momenta"]
        torch.set_rng_state(stored["chance"])
        steps, before = stored["steps"], stored["seconds"]
    begun, written = time.process_time() - before, before
    batches = minibatches(images, labels, options.shift)
    while (spent := time.process_time() - begun) < seconds:
        done = spent / seconds
        rate = min((done + 1e-3) / WARM, (1 - done) / (1 - WARM))
        x, y = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(x).float()
        rows = head.weight
        gaps = (2 - 2 * rows @ rows.mT).clamp_min(1e-6).sqrt()
        model.zero_grad()
        loss(logits, y, gaps).backward()
        manifold.step(RATE * rate)
        adam.param_groups[0]["lr"] = HEAD_RATE * rate
        adam.step()
        steps += 1
        if spent > written + 300:
            written = spent
            state: dict[str, Any] = {"model": model.state_dict(), "adam": adam.state_dict()}
            state |= {"momenta": manifold.momenta, "chance": torch.get_rng_state()}
            torch.save(state | {"steps": steps, "seconds": spent}, checkpoint.with_suffix(".new"))
            checkpoint.with_suffix(".new").replace(checkpoint)
    manifold.finish()
    torch.save(model.state_dict(), options.out / "model.pt")
    settings = {name: getattr(options, name) for name in ("seed", "minutes", "shift", "held_out")}
    settings |= {"epsilon": options.epsilon, "width": WIDTH, "depth": DEPTH}
    found = {"steps": steps, "epochs": round(steps * BATCH / len(images), 1), "seconds": seconds}
    (options.out / "train.json").write_text(json.dumps({"settings": settings, "train": found}))


def certify(options: argparse.Namespace) -> None:
    """Certify by constants, attack what is left, and bound what withstands locally."""
    settings = json.loads((options.run / "train.json").read_text())["settings"]
    model = network()
    model.load_state_dict(torch.load(options.run / "model.pt"))
    exported = onelip.export(model.eval()).double().eval()
    *_, images, labels = split(options.data, settings["held_out"])
    x = images.double().view(-1, 1, 28, 28) / 255
    place, count = map(int, options.part.split("/"))
    rows = torch.arange(place, len(x), count)
    whole = onelip.certify(exported, x[rows], labels[rows], method=LipLT())
    radius, right = whole.radius, whole.prediction == labels[rows]
    open_ = (right & (radius <= EPS)).nonzero()[:, 0]
    broken = torch.zeros(len(rows), dtype=torch.bool)
    single = exported.float()  # an attack needs no more
    for part in open_.split(500):
        at = rows[part]
        broken[part] = attack(single, x[at].float(), labels[at], EPS, ATTACKS).success
    exported = exported.double()
    left = [int(row) for row in rows[open_[~broken[open_]]]]
    summary = {"images": len(rows), "right": int(right.sum()), "bound": float(whole.bound)}
    summary |= {"certified": int((radius > EPS).sum()), "open": len(left)}
    stored = options.run / f"part-{place}-of-{count}.jsonl"
    done = (
        {json.loads(line)["row"] for line in stored.read_text().splitlines()[1:]}
        if stored.exists()
        else set()
    )
    if not stored.exists():
        stored.write_text(json.dumps(summary) + "\n")
    local = Local((BEYOND,), tries=1, farthest=BEYOND, cap=LipLT(), inside=(0.0, 1.0))
    method = Proved(radius_proof(local, exported, (1, 28, 28)))  # constants, once for all images
    for row in left:
        if row in done:
            continue
        start = time.process_time()
        found = onelip.certify(exported, x[row : row + 1], labels[row : row + 1], method=method)
        line = {"row": row, "radius": round(float(found.radius), 6)}
        line |= {"seconds": round(time.process_time() - start, 1)}
        with stored.open("a") as file:
            file.write(json.dumps(line) + "\n")


def collect(options: argparse.Namespace) -> None:
    """Put the parts of runs into one record."""
    records: list[dict[str, Any]] = []
    for run in options.runs:
        total = {"images": 0, "right": 0, "certified": 0, "open": 0}
        valid, tried, seconds = 0, 0, 0.0
        for path in sorted(run.glob("part-*.jsonl")):
            first, *lines = map(json.loads, path.read_text().splitlines())
            total = {name: count + first[name] for name, count in total.items()}
            valid += sum(line["radius"] > EPS for line in lines)
            tried, seconds = tried + len(lines), seconds + sum(line["seconds"] for line in lines)
        share = {name: round(100 * count / total["images"], 2) for name, count in total.items()}
        record = json.loads((run / "train.json").read_text())
        record |= {
            "images": total["images"],
            "clean": share["right"],
            "certified": share["certified"],
        }
        inside = round(100 * (total["certified"] + valid) / total["images"], 2)
        attacked = round(100 * (total["certified"] + total["open"]) / total["images"], 2)
        record |= {"certified among valid images": inside, "under PGD and AutoPGD": attacked}
        record |= {"open images": total["open"], "tried": tried, "local seconds": round(seconds)}
        records.append(record)
        print(json.dumps(record, indent=1))
    if options.out:
        options.out.write_text(json.dumps(records, indent=1) + "\n")


def main() -> None:
    """Run one of the three."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    commands = parser.add_subparsers(required=True)
    first = commands.add_parser("train")
    first.add_argument("--data", type=Path, required=True)
    first.add_argument("--out", type=Path, required=True)
    first.add_argument("--minutes", type=float, default=25, help="of the processor")
    first.add_argument("--seed", type=int, default=0)
    first.add_argument("--shift", type=int, default=0, help="pixels")
    first.add_argument("--epsilon", type=float, default=EPSILON, help="of the loss")
    first.add_argument("--held-out", action="store_true")
    first.set_defaults(run_it=train)
    second = commands.add_parser("certify")
    second.add_argument("run", type=Path)
    second.add_argument("--data", type=Path, required=True)
    second.add_argument("--part", default="0/1", help="as 0/2 and 1/2, for two processes")
    second.set_defaults(run_it=certify)
    third = commands.add_parser("collect")
    third.add_argument("runs", type=Path, nargs="+")
    third.add_argument("--out", type=Path)
    third.set_defaults(run_it=collect)
    options = parser.parse_args()
    torch.set_num_threads(1)
    options.run_it(options)


if __name__ == "__main__":
    main()
