r"""Convex potentials: the symmetric part of a vector field (Meunier et al., ICML 2022, section 3).

A field whose Jacobian is symmetric is the gradient of a function f. If f is convex, the flow of
:math:`\dot x = -\nabla f(x)` does not increase distances. Whether a scheme in discrete time
keeps this depends on the curvature of f, on two numbers :math:`0 \le \mu \le L` with

.. math:: \mu \|x - z\|^2 \le \langle \nabla f(x) - \nabla f(z), x - z \rangle
   \quad \text{and} \quad \|\nabla f(x) - \nabla f(z)\| \le L \|x - z\| .
"""

import abc

import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

from onelip.errors import UnboundedModuleError
from onelip.lipschitz import overridable, refuse_inherited


class Potential(nn.Module, abc.ABC):
    """Base class of convex functions with proved bounds of their curvature.

    A subclass writes ``forward`` and ``smoothness``, and overrides defaults that it can improve.
    Like layers, potentials are final. ``onelip.testing.check_potential`` tests one.

    Example:
        >>> class Hills(Potential):
        ...     def forward(self, x):
        ...         return (1 + x.square()).sqrt().sum(1)
        ...
        ...     def smoothness(self):
        ...         return torch.ones((), dtype=torch.float64)
        >>> Hills().gradient(torch.zeros(1, 2))
        tensor([[0., 0.]])
    """

    @abc.abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Return the value of each sample, ``(batch,)``."""

    @abc.abstractmethod
    def smoothness(self) -> Tensor:
        """Proved upper bound L of the Lipschitz constant of the gradient: 0-d float64, rounded up.

        Infinity means that none is known; a closed-form ``proximal`` needs none.
        """

    @overridable
    def convexity(self) -> Tensor:
        """Proved lower bound mu >= 0 of the curvature: 0-d float64, rounded down; 0 by default."""
        return torch.zeros((), dtype=torch.float64)

    @overridable
    def gradient(self, x: Tensor) -> Tensor:
        """Return the gradient at each sample, differentiable; by default by autograd."""
        tracked = x.requires_grad or any(part.requires_grad for part in self.parameters())
        wanted = torch.is_grad_enabled() and tracked
        with torch.inference_mode(False), torch.enable_grad():
            # inference tensors cannot require gradients: a clone can
            apart = x.clone() if x.is_inference() else x.detach()
            point = x if x.requires_grad else apart.requires_grad_()
            values = self(point).sum()
            if not values.requires_grad:  # a constant
                return torch.zeros_like(x)
            (gradient,) = torch.autograd.grad(
                values, point, create_graph=wanted, allow_unused=True, materialize_grads=True
            )
        return gradient

    @overridable
    def proximal(self, x: Tensor, step: Tensor) -> Tensor:
        """Return the exact minimiser of ``|y - x|^2 / 2 + step f(y)``; optional."""
        raise NotImplementedError(f"{type(self).__name__} has no closed form of proximal()")

    @property
    def has_proximal(self) -> bool:
        """Whether the class has a closed form of ``proximal``."""
        return type(self).proximal is not Potential.proximal


@torch.no_grad()
def curvature(potential: Potential) -> tuple[Tensor, Tensor]:
    """Proved interval ``(mu, L)`` of the curvature of a potential, for the weights in use.

    Raises:
        UnboundedModuleError: the potential inherits its proof from another one, or its bounds are
            no interval of numbers >= 0, or a backward hook may change its gradient.
    """
    for method in ("smoothness", "convexity", "proximal"):
        refuse_inherited(potential, method)
    _refuse_backward_hooks(potential)
    low = potential.convexity().to("cpu", torch.float64)
    high = potential.smoothness().to("cpu", torch.float64)
    if not 0 <= low <= high or low.isinf():
        raise UnboundedModuleError(
            f"{type(potential).__name__} has curvatures from {float(low)} to {float(high)}: its "
            "smoothness() and convexity() must prove 0 <= convexity <= smoothness"
        )
    return low, high


def _refuse_backward_hooks(potential: Potential) -> None:
    """Refuse backward hooks: a gradient by autograd, and so a scheme's forward, runs them."""
    everywhere = torch_module._global_backward_hooks, torch_module._global_backward_pre_hooks
    inside = [
        hooks
        for part in potential.modules()
        for hooks in (part._backward_hooks, part._backward_pre_hooks)
    ]
    if any((*everywhere, *inside)):
        raise UnboundedModuleError(
            f"a backward hook may change the gradient of {type(potential).__name__}: remove it"
        )
