r"""A certified airbench: what is proved about CIFAR-10 after 15 minutes on two cores?

The number is **certified accuracy at l2 radius 36/255**, in per cent of the 10,000 test images,
proved by ``onelip.certify`` from the exported weights. The clock counts processor seconds of all
threads, from decoded images to final weights: 15 minutes of two cores are 30 processor minutes,
whatever else the machine does in the meantime.

    python airbench.py --data FOLDER --width 2        # 30 processor minutes, test images
    python airbench.py --data FOLDER --minutes 240 --width 3 --out RECORD --checkpoint FILE
    python airbench.py --data FOLDER --held-out       # to choose by: 45,000 images, 5,000 others

Rules: any network, loss, optimiser, augmentation; no other images, no weights from elsewhere;
choices are made on held-out images; the proof is for all of l2 and counts no sample that it does
not hold for. FOLDER has the hub's Parquet files of CIFAR-10.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import onelip
from onelip.layers import AOCConv2d, CholeskyLinear, HalfAbs, UnitNormLinear, computed_once

EPS = (0, 36 / 255, 72 / 255, 108 / 255)
EPSILON, TEMPERATURE = 28 / 255, 0.25  # of the loss
BATCH, RATE, WARM = 256, 1e-2, 0.2


Block = Callable[[int, int, int], list[nn.Module]]
"""Function of input channels, output channels and the image's side to layers."""


def block(inputs: int, outputs: int, side: int) -> list[nn.Module]:  # noqa: ARG001
    """An orthogonal convolution with zeros around the image, and an activation."""
    return [AOCConv2d(inputs, outputs, 3, padding_mode="zeros"), HalfAbs(outputs)]


def network(width: int = 1, depth: int = 1, block: Block = block) -> nn.Sequential:
    """Isometries, but for what the borders take.

    Where a side is halved the kernel has the size of the stride: an orthogonal matrix, and no
    kernel on four times the channels. Images of 4 x 4 pixels see no other layer, for a CPU's
    convolutions are slow on them.
    """
    parts: list[nn.Module] = [nn.PixelUnshuffle(2)]
    before, features = 12, 256
    for side, channels in ((16, 32 * width), (8, 64 * width)):
        if side < 16:
            parts += [AOCConv2d(before, channels, 2, 2, padding=0), HalfAbs(channels)]
            before = channels
        for _ in range(1 + depth):
            parts += block(before, channels, side)
            before = channels
    last = 2 * before
    parts += [AOCConv2d(before, last, 2, 2, padding=0), HalfAbs(last), nn.Flatten()]
    parts += [CholeskyLinear(last * 16, features), HalfAbs(features)]
    model = nn.Sequential(*parts)
    model.add_module("head", UnitNormLinear(features, 10))
    return model


def minibatches(images: Tensor, labels: Tensor, shift: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless minibatches of pixels in [0, 1], each image flipped and moved by chance."""
    while True:
        for rows in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            x = images[rows]
            x = torch.where(torch.rand(BATCH, 1, 1, 1) < 0.5, x.flip(3), x)
            padded = F.pad(x, (shift,) * 4, mode="reflect")
            down, right = torch.randint(2 * shift + 1, (2, BATCH, 1)) + torch.arange(32)
            places = torch.arange(BATCH)[:, None, None], down[:, :, None], right[:, None, :]
            moved = padded.permute(0, 2, 3, 1)[places]  # channels last
            yield moved.permute(0, 3, 1, 2).float() / 255, labels[rows]


class Clock:
    """Seconds of all threads since a training began, of earlier processes too."""

    def __init__(self, before: float = 0.0) -> None:
        self._begun = time.process_time() - before

    def __call__(self) -> float:
        """Processor seconds."""
        return time.process_time() - self._begun


def train(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    seconds: float,
    *,
    epsilon: float = EPSILON,
    shift: int = 2,
    checkpoint: Path | None = None,
) -> dict[str, float]:
    """Train for a number of processor seconds; the learning rate follows the clock.

    With a checkpoint, which is written every five minutes, the same call goes on where it stopped.
    """
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    head = model.get_submodule("head")
    assert isinstance(head, UnitNormLinear)
    optimiser = torch.optim.Adam(model.parameters(), lr=RATE)
    loss = onelip.losses.LipschitzMargin(epsilon, TEMPERATURE)
    batches, steps, clock, start = minibatches(images, labels, shift), 0, Clock(), time.time()
    if checkpoint and checkpoint.exists():
        stored = torch.load(checkpoint)
        model.load_state_dict(stored["model"])
        optimiser.load_state_dict(stored["optimiser"])
        torch.set_rng_state(stored["chance"])
        steps, clock, start = stored["steps"], Clock(stored["seconds"]), start - stored["wall"]
    written = clock()
    while (done := clock() / seconds) < 1:
        for group in optimiser.param_groups:
            group["lr"] = RATE * min((done + 1e-3) / WARM, (1 - done) / (1 - WARM))
        x, y = next(batches)
        with computed_once(model):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(x).float()
            gaps = (2 - 2 * head.weight @ head.weight.mT).clamp_min(1e-6).sqrt()
            value = loss(logits, y, gaps)
            optimiser.zero_grad()
            value.backward()
        optimiser.step()
        steps += 1
        if checkpoint and (clock() > written + 300 or clock() >= seconds):
            written = clock()
            state: dict[str, Any] = {"model": model.state_dict()}
            state["optimiser"] = optimiser.state_dict()
            state |= {"chance": torch.get_rng_state(), "steps": steps}
            state |= {"seconds": written, "wall": time.time() - start}
            torch.save(state, checkpoint.with_suffix(".writing"))
            checkpoint.with_suffix(".writing").replace(checkpoint)
    return {
        "steps": steps,
        "epochs": round(steps * BATCH / len(images), 2),
        "processor_seconds": round(clock(), 1),
        "seconds": round(time.time() - start, 1),
    }


def splits(folder: Path, held_out: bool) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Images and labels to train on, and others: test images, or 5,000 that are held out."""
    known = onelip.data.load("cifar10", "train", folder)
    if held_out:
        order = torch.randperm(50_000, generator=torch.Generator().manual_seed(1))
        rows, others = order[:45_000], order[45_000:]
        images, labels = known.inputs, known.labels
        return images[rows], labels[rows], images[others], labels[others]
    test = onelip.data.load("cifar10", "test", folder)
    return known.inputs, known.labels, test.inputs, test.labels


def certified(model: nn.Module, images: Tensor, labels: Tensor) -> dict[str, Any]:
    """Export, prove and certify; accuracies in per cent."""
    network = onelip.export(model.eval())
    start = time.perf_counter()
    certificate = onelip.certify(network, images.float() / 255, labels)
    found = {
        f"{round(255 * eps)}/255": round(100 * certificate.accuracy(eps, labels), 2) for eps in EPS
    }
    seconds = round(time.perf_counter() - start, 1)
    return {"certified": found, "bound": float(certificate.bound), "certify_seconds": seconds}


def main() -> None:
    """Train, certify, and write what was found beside the settings."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=30, help="of the processor")
    parser.add_argument("--epsilon", type=float, default=EPSILON, help="of the loss")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--width", type=int, default=1)
    parser.add_argument("--depth", type=int, default=1)
    parser.add_argument("--shift", type=int, default=2, help="pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--held-out", action="store_true")
    parser.add_argument("--out", type=Path, help="a record, as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    images, labels, test_images, test_labels = splits(options.data, options.held_out)
    model = network(options.width, options.depth)
    found = train(
        model,
        images,
        labels,
        60 * options.minutes,
        epsilon=options.epsilon,
        shift=options.shift,
        checkpoint=options.checkpoint,
    )
    settings = {k: v for k, v in vars(options).items() if k not in ("data", "out", "checkpoint")}
    record = {"settings": settings, "training": found, **certified(model, test_images, test_labels)}
    if options.out:
        options.out.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))


if __name__ == "__main__":
    main()
