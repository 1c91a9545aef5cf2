"""Networks of the usual kinds, with statistics and weights that are not those of a new one."""

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """``relu(x + f(x))``, f with one or two hidden layers, and a strided way around it."""

    def __init__(self, inputs: int, outputs: int, stride: int, hidden: int) -> None:
        super().__init__()
        parts = [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)]
        for _ in range(hidden):
            parts += [nn.ReLU(inplace=True), nn.Conv2d(outputs, outputs, 3, padding=1)]
        self.branch = nn.Sequential(*parts, nn.BatchNorm2d(outputs))
        self.around: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.around = nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.around(x) + self.branch(x))


class PreActivation(nn.Module):
    """``x + f(relu(norm(x)))``."""

    def __init__(self, features: int) -> None:
        super().__init__()
        self.norm, self.inner = nn.BatchNorm1d(features), nn.Linear(features, 2 * features)
        self.outer = nn.Linear(2 * features, features)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.outer(torch.tanh(self.inner(torch.relu(self.norm(x)))))


class Normalised(nn.Module):
    """A network on pixels, which are normalised by constants."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor([0.4, 0.5])[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.network((x - self.mean) / 0.3)
        return y


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(72, 9),
        nn.LeakyReLU(0.1),
        nn.Linear(9, 7),
        nn.Tanh(),
        nn.Linear(7, 3),
    )


def strided() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.ReLU(inplace=True),
        nn.Conv2d(4, 4, 2, padding="same"),
        nn.ELU(0.5),
        nn.AvgPool2d(3, stride=1, padding=1),
        nn.Flatten(),
        nn.Linear(36, 3),
    )


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 2),
        nn.Sigmoid(),
        nn.MaxPool2d(2, stride=1, padding=1),
        nn.Dropout(),
        nn.Flatten(),
        nn.Linear(36, 3),
    )


def resnet() -> nn.Module:
    return nn.Sequential(
        Residual(2, 4, 2, hidden=1),
        Residual(4, 4, 1, hidden=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        PreActivation(4),
        nn.Linear(4, 3),
    )


def smooth() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(72, 4),
        nn.GELU(),
        nn.Linear(4, 4),
        nn.SiLU(),
        nn.Linear(4, 4),
        nn.Softplus(),
        nn.Linear(4, 4),
        nn.Mish(),
        nn.PReLU(4),
        nn.Hardtanh(-0.5, 2.0),
        nn.Linear(4, 2),
    )


def build(name: str) -> nn.Module:
    """In eval mode, with a seed of its own."""
    torch.manual_seed(0)
    model = Normalised(NETWORKS[name]()).eval()
    for part in model.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(part.running_mean)
            nn.init.uniform_(part.running_var, 0.2, 2)
            nn.init.normal_(part.weight)
            nn.init.normal_(part.bias)
    return model


NETWORKS = {
    "mlp": mlp,
    "strided": strided,
    "lenet": lenet,
    "resnet": resnet,
    "smooth": smooth,
}
SHAPE = (2, 6, 6)
