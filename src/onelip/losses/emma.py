"""Efficient margin maximisation, EMMA (Hu et al., NeurIPS 2023)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from onelip.losses.reduction import Reduction, checked


class EMMA(nn.Module):
    """Cross-entropy after raising each other logit by the most that its own radius allows.

    Logit i is raised by ``constant * eps_i``, where ``eps_i = (f_y - f_i) / constant`` is the
    radius at which it would tie with the label, clamped to ``[floor * epsilon, epsilon]``. Classes
    closer than epsilon thus become ties, and do not win, which keeps the training stable; the
    others are raised by all of epsilon. The eps_i have no gradient. The authors increase epsilon
    from 0.1 to 3 times the target radius, over half of the epochs.

    Shape: logits ``(batch, classes)`` and labels ``(batch,)`` to a scalar.

    Args:
        epsilon: the radius to train for, in units of the input.
        constant: Lipschitz constant of the difference of two logits; ``sqrt(2)`` for a 1-Lipschitz
            network, and ``|w_y - w_i|``, at most 2, with a head of rows of length 1.
        floor: smallest eps_i as a share of epsilon.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: a negative epsilon, a constant that is not positive, a floor outside [0, 1].

    Example:
        >>> EMMA(1.0, constant=1.0)(torch.tensor([[0.5, 0.0]]), torch.tensor([0]))
        tensor(0.6931)

    Reference: Hu, Zou, Wang, Leino, Fredrikson, "Unlocking Deterministic Robustness Certification
    on ImageNet", NeurIPS 2023.
    """

    def __init__(
        self,
        epsilon: float = 36 / 255,
        constant: float = 2**0.5,
        floor: float = 0.01,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if not epsilon >= 0 or not constant > 0:
            raise ValueError(
                f"epsilon >= 0 and constant > 0 are asked, got {epsilon} and {constant}"
            )
        if not 0 <= floor <= 1:
            raise ValueError(f"floor is a share between 0 and 1, got {floor}")
        self.epsilon, self.constant, self.floor = epsilon, constant, floor
        self.reduction = checked(reduction)

    def forward(self, logits: Tensor, labels: Tensor, constants: Tensor | None = None) -> Tensor:
        """Return the loss, a scalar, or one for each sample.

        Args:
            logits: ``(batch, classes)``.
            labels: ``(batch,)``.
            constants: ``(classes, classes)``, one for each difference of two logits, in place of
                ``constant``.
        """
        moved = logits + self.raised(logits, labels, constants)
        return F.cross_entropy(moved, labels, reduction=self.reduction)

    @torch.no_grad()
    def raised(self, logits: Tensor, labels: Tensor, constants: Tensor | None = None) -> Tensor:
        """Return ``constant * eps_i`` for each other class, and 0 for the label."""
        slopes = logits.new_tensor(self.constant) if constants is None else constants[labels]
        most = slopes * self.epsilon
        margins = logits.gather(1, labels[:, None]) - logits
        raised = margins.maximum(self.floor * most).minimum(most)
        return raised.scatter(1, labels[:, None], 0)
