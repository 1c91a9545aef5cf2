"""Claim: rounding can do next to nothing to a forward pass in float64, and costs radius in float32.

Bounds of ``certificates/forward_error.py`` beside the largest error that random inputs of the same
length show in float32 (against the same weights in float64).
"""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from harness import save
from torch import Tensor, nn

from onelip import export
from onelip.certificates.forward_error import forward_error
from onelip.models import cpl_digits, kw_small, lip_convnet, mnist_dense


def _dense() -> nn.Sequential:
    layers: list[nn.Module] = [nn.Linear(784, 512), nn.Linear(512, 512), nn.Linear(512, 10)]
    for layer in layers:
        assert isinstance(layer.weight, Tensor)
        nn.init.orthogonal_(layer.weight)
    return nn.Sequential(layers[0], nn.ReLU(), layers[1], nn.ReLU(), layers[2])


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "784-512-512-10, orthogonal, ReLU": (_dense, (784,)),
    "mnist_dense": (lambda: mnist_dense((1, 28, 28), 10), (1, 28, 28)),
    "mnist_dense, MLP head of 512": (
        lambda: mnist_dense((1, 28, 28), 10, head="mlp", hidden=512),
        (1, 28, 28),
    ),
    "kw_small, BCOP": (lambda: kw_small((1, 28, 28), 10), (1, 28, 28)),
    "cpl_digits": (lambda: cpl_digits((1, 8, 8), 10), (1, 8, 8)),
    "LipConvnet-5, SOC": (lambda: lip_convnet((3, 32, 32), 10), (3, 32, 32)),
}


def main() -> None:
    """All networks."""
    torch.set_num_threads(1)
    save("forward_error_cpu", _rows())


def _rows() -> Iterator[dict[str, Any]]:
    for name, (build, shape) in MODELS.items():
        torch.manual_seed(0)
        model = export(build())
        reach = math.sqrt(math.prod(shape)) / 2
        x = torch.rand(64, *shape)
        x = x * (reach / x.flatten(1).norm(dim=1)).view(-1, *(1,) * len(shape))
        single = float(forward_error(model, shape, reach))
        computed = model(x).double()
        model.double()
        yield {
            "network": name,
            "reach": round(reach, 3),
            "float32": single,
            "seen_float32": float((computed - model(x.double())).norm(dim=1).max()),
            "float64": float(forward_error(model, shape, reach)),
        }


if __name__ == "__main__":
    main()
