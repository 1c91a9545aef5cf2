"""A critic's lower bound of a Wasserstein distance against exact solvers, as the samples grow.

P are the MNIST digits 0 to 4, Q the digits 5 to 9: 784 dimensions. The solvers get n held-out
samples of each, the critics n others to train on, always the same number of steps, and are judged
on the held-out ones. A solver that would take over 200 seconds is left out.
``python benchmarks/transport.py [FOLDER OF MNIST]``: about fifteen minutes on one core.
"""

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import ot
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from onelip.data import load
from onelip.models import dcgan_critic, dense_critic
from onelip.transport import CriticTraining, judge

SIZES = (500, 1000, 2000, 4000, 8000)
LIMIT = 200.0
GROWTH = 8.0  # of a solver's seconds when n doubles
BATCH, LR = 64, 5e-3
CRITICS: dict[str, tuple[int, Callable[[], nn.Module]]] = {
    "dense, three of 128": (2000, lambda: dense_critic(784)),
    "bcop 16, 32, 64": (2000, lambda: dcgan_critic((1, 28, 28))),
}


def samples(folder: Path | None) -> tuple[Tensor, Tensor]:
    """Digits 0 to 4, and 5 to 9, each in a random order."""
    data = load("mnist", "train", folder)
    images = data.inputs.float().div(255)
    small, large = images[data.labels < 5], images[data.labels > 4]
    random = torch.Generator().manual_seed(0)
    p, q = (part[torch.randperm(len(part), generator=random)] for part in (small, large))
    return p, q


def distances(p: Tensor, q: Tensor) -> Any:
    """As ``exact_distance`` computes them."""
    mode = "donot_use_mm_for_euclid_dist"
    return torch.cdist(p.flatten(1).double(), q.flatten(1).double(), compute_mode=mode).numpy()


def assignment(p: Tensor, q: Tensor) -> float:
    matrix = distances(p, q)
    rows, columns = linear_sum_assignment(matrix)
    return float(matrix[rows, columns].mean())


def simplex(p: Tensor, q: Tensor) -> float:
    return float(ot.emd2([], [], distances(p, q), numItermax=10**9))


def timed(function: Callable[..., Any], *arguments: Any) -> tuple[Any, float]:
    """The result, and seconds of the processor: other processes do not count."""
    start = time.process_time()
    result = function(*arguments)
    return result, round(time.process_time() - start, 3)


def critic_row(name: str, train: tuple[Tensor, ...], test: tuple[Tensor, ...]) -> dict[str, Any]:
    """Training and judgement, and what they prove."""
    steps, build = CRITICS[name]
    torch.manual_seed(0)
    training = CriticTraining(build(), *train, steps=steps, batch=BATCH, lr=LR)
    _, seconds = timed(training.run)
    found, proof = timed(judge, training.critic, *test)
    return {
        "steps": steps,
        "train_s": seconds,
        "judge_s": proof,
        "value": round(found.value, 4),
        "interval": [round(found.lower, 4), round(found.upper, 4)],
        "constant": found.constant,
    }


def rows(p: Tensor, q: Tensor) -> Iterator[dict[str, Any]]:
    solvers = {"scipy assignment": assignment, "POT emd2": simplex}
    expected = dict.fromkeys(solvers, 0.0)
    for n in SIZES:
        train, test = (p[:n], q[:n]), (p[n : 2 * n], q[n : 2 * n])
        row: dict[str, Any] = {"n": n}
        _, row["distances_s"] = timed(distances, *test)
        for name, solve in solvers.items():
            if expected[name] > LIMIT:
                row[name] = None
                continue
            value, seconds = timed(solve, *test)
            expected[name] = GROWTH * seconds
            row[name] = {"seconds": seconds, "distance": round(value, 4)}
        for name in CRITICS:
            row[name] = critic_row(name, train, test)
        yield row


def main() -> None:
    torch.set_num_threads(1)
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    harness.save("transport_cpu", rows(*samples(folder)))


if __name__ == "__main__":
    main()
