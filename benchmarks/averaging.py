"""Claim: the mean of a network over flips and shifts, or over networks, is certified for nothing.

Small orthogonal networks, each trained for a fixed time on one thread, with and without the
transforms in training, are certified alone, as means over transforms, and as means of two networks.
All rows are shown: nothing is chosen by them. ``python averaging.py mnist FOLDER`` takes a data set
(digits, mnist, cifar10) and its folder; ``python averaging.py cifar10 FOLDER NETWORK.pt IMAGES`` an
exported network that was trained before, by ``torch.save``, and a number of test images.
"""

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from harness import save
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip import layers
from onelip.data import LabelledSet, as_floats, load
from onelip.layers import computed_once
from onelip.models import averaged


class Task(NamedTuple):
    """Network, training and radii of a data set."""

    sizes: str
    seconds: float
    offset: float
    eps: tuple[float, ...]
    trained: tuple[str, ...]
    overs: tuple[str, ...]


SHIFTS = ("cross", "shifts", "wrapped-shifts")
TASKS = {
    "digits": Task("c16 d32 f128", 20, 0.5, (0.25, 0.5, 1.0), ("", "shift"), SHIFTS),
    "mnist": Task("f512 f512 f256", 60, 1.58, (0.5, 1.0, 1.58), ("", "shift"), SHIFTS),
    "cifar10": Task(
        "e64 c64 c64 d192 c192 c192 c192 d256 f256",
        150,
        36 / 255,
        (36 / 255, 72 / 255, 108 / 255),
        ("shift", "flip,shift"),
        ("flip", "cross", "flip,cross"),
    ),
}
IMAGES = {"cifar10": 2000}  # the first ones of the test set; all of the others
BATCH, RATE, TEMPERATURE, WARM = 256, 1e-2, 0.25, 0.2


def main() -> None:
    """One data set."""
    name, *rest = sys.argv[1:]
    torch.set_num_threads(1)
    folder = Path(rest[0]) if rest else None
    rows = _rows(name, folder) if len(rest) < 2 else _of_file(name, folder, *rest[1:])
    save(f"averaging_{name}_cpu", rows)


def _of_file(name: str, folder: Path | None, file: str, images: str) -> Iterator[dict[str, Any]]:
    task, test = TASKS[name], load(name, "test", folder)
    test = test.subset(torch.arange(int(images)))
    network = torch.load(file, weights_only=False)
    about = {"data": test.note or name, "network": Path(file).name}
    yield about | _certified(network, test, task)
    for over in task.overs:
        yield about | {"mean over": over} | _certified(averaged(network, over), test, task)


def _rows(name: str, folder: Path | None) -> Iterator[dict[str, Any]]:
    task, train, test = TASKS[name], load(name, "train", folder), load(name, "test", folder)
    test = test.subset(torch.arange(IMAGES.get(name, len(test))))
    for augmented in task.trained:
        networks = []
        for seed in (0, 1) if augmented == task.trained[-1] else (0,):
            network, steps = _trained(task, train, augmented, seed)
            networks.append(network)
            about: dict[str, Any] = {"data": test.note or name, "trained with": augmented}
            about |= {"seed": seed}
            about |= {"cpu seconds": task.seconds, "epochs": round(steps * BATCH / len(train), 2)}
            yield about | _certified(network, test, task)
            for over in task.overs if seed == 0 else ():
                yield about | {"mean over": over} | _certified(averaged(network, over), test, task)
        if len(networks) > 1:
            about = {"data": test.note or name, "trained with": augmented, "seeds": [0, 1]}
            yield about | _certified(averaged(networks), test, task)
            over = task.overs[0]
            both = averaged(networks, over)
            yield about | {"mean over": over} | _certified(both, test, task)


def _certified(network: nn.Module, test: LabelledSet, task: Task) -> dict[str, Any]:
    """Shares in per cent, the proved constant, and the seconds of proof and prediction."""
    start = time.process_time()
    x = as_floats(test.inputs)
    certificate = onelip.certify(network, x, test.labels, batch_size=256)
    shares = {f"{eps:.6g}": certificate.accuracy(eps, test.labels) for eps in task.eps}
    return {
        "test images": len(test),
        "clean": round(100 * float((certificate.prediction == test.labels).double().mean()), 2),
        "certified": {eps: round(100 * share, 2) for eps, share in shares.items()},
        "mean radius": round(float(certificate.radius.mean()), 5),
        "bound before the head": float(certificate.body_bound),
        "certify seconds": round(time.process_time() - start, 2),
    }


def _trained(task: Task, data: LabelledSet, augmented: str, seed: int) -> tuple[nn.Module, int]:
    """Train for some seconds of one thread in bfloat16, and export."""
    torch.manual_seed(seed)
    model = _network(task.sizes, tuple(data.inputs.shape[1:]))
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    offset = math.sqrt(2) * task.offset * F.one_hot(torch.arange(data.classes)).float()
    step, order, start = 0, torch.randperm(len(data)), time.process_time()
    while (part := (time.process_time() - start) / task.seconds) < 1:
        at = step * BATCH % (len(data) - BATCH + 1)
        if at < BATCH:
            order = torch.randperm(len(data))
        rows = order[at : at + BATCH]
        x, y = _augmented(as_floats(data.inputs[rows]), augmented), data.labels[rows]
        with computed_once(model), torch.autocast("cpu", torch.bfloat16):
            logits = model(x.contiguous(memory_format=torch.channels_last)).float()
            loss = F.cross_entropy((logits - offset[y]) / TEMPERATURE, y)
            optimiser.zero_grad()
            loss.backward()
        rate = RATE * min((part + 1e-3) / WARM, (1 - part) / (1 - WARM))
        for group in optimiser.param_groups:
            group["lr"] = rate
        optimiser.step()
        step += 1
    return onelip.export(model.eval()), step


def _network(sizes: str, shape: tuple[int, ...]) -> nn.Sequential:
    """Orthogonal convolutions c, halvings d and e, and dense layers f, with MaxMin after each."""
    channels, side, _ = shape
    parts: list[nn.Module] = []
    for token in sizes.split():
        kind, width = token[0], int(token[1:])
        if kind == "c":
            parts.append(layers.AOCConv2d(channels, width, 3, padding_mode="zeros"))
        elif kind in "de":
            taps, padding = (4, 1) if kind == "e" else (2, 0)
            mode = "zeros" if padding else "circular"
            parts.append(
                layers.AOCConv2d(channels, width, taps, 2, padding=padding, padding_mode=mode)
            )
            side //= 2
        else:
            parts += [] if side == 1 else [nn.Flatten()]
            parts.append(layers.CholeskyLinear(channels * side**2, width))
            side = 1
        parts.append(layers.MaxMin())
        channels = width
    model = nn.Sequential(*parts, layers.UnitNormLinear(channels, 10))
    return model.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def _augmented(x: Tensor, how: str) -> Tensor:
    """Flip half of the images, and shift each batch by up to one pixel, zeros coming in."""
    if "flip" in how:
        x = torch.where((torch.rand(len(x)) < 0.5)[:, None, None, None], x.flip(3), x)
    if "shift" in how:
        pieces = []
        for piece in x.chunk(8):
            down, right = (int(n) for n in torch.randint(-1, 2, (2,)))
            pieces.append(layers.Shift(down, right)(piece))
        x = torch.cat(pieces)
    return x


if __name__ == "__main__":
    main()
