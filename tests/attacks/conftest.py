"""A linear classifier, for which the distance to the nearest mistake is known."""

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

SHAPE = (1, 4, 4)


@dataclass
class Linear:
    model: nn.Module
    images: Tensor
    labels: Tensor
    distance: Tensor


@pytest.fixture
def linear() -> Linear:
    """Eight images around grey, all classified correctly, with their exact distances."""
    torch.manual_seed(0)
    layer = nn.Linear(16, 3).double()
    model = nn.Sequential(nn.Flatten(), layer).eval()
    images = 0.5 + 0.1 * (torch.rand(8, *SHAPE).double() - 0.5)
    with torch.no_grad():
        layer.bias -= model(images).mean(0)
        logits = model(images)
    labels = logits.argmax(1)
    gaps = logits.gather(1, labels[:, None]) - logits
    slopes = torch.linalg.vector_norm(layer.weight[labels][:, None] - layer.weight, dim=2)
    distance = torch.where(gaps > 0, gaps / slopes, torch.inf).amin(1).detach()
    assert len(labels.unique()) > 1
    return Linear(model, images, labels, distance)


class Fixed(nn.Module):
    """Always the same class, whatever it is shown."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1).sum(1, keepdim=True) * 0 + torch.tensor([1.0, 0.0])


@pytest.fixture
def fixed() -> nn.Module:
    return Fixed().eval()
