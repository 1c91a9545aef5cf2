"""Custom gradients where another derivative than the first in reverse mode is asked for."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from onelip.errors import NotApplicableError


def forward_mode() -> bool:
    """Return whether a derivative in forward mode (``jvp``, ``jacfwd``, ``hessian``) is computed.

    torch compiles no function that has both a gradient and a forward mode of its own, so ours have
    a gradient, and forward mode takes the plain operations instead. Which tensors it passes through
    cannot be asked where it is nested with other derivatives.
    """
    if torch.compiler.is_compiling():
        return False
    return getattr(forward_ad, "_current_level", -1) >= 0


def once(gradient: Tensor, why: str, *rests_on: Tensor) -> Tensor:
    """Return a gradient that refuses to be differentiated again, instead of passing for a constant.

    Args:
        gradient: as a backward pass computed it.
        why: what to say, and the way out.
        rests_on: what it is a function of.

    Raises:
        NotApplicableError: in the backward pass through the gradient.
    """
    if not torch.is_grad_enabled():
        return gradient
    refused: Tensor = _Once.apply(gradient.detach(), why, *rests_on)  # type: ignore[no-untyped-call]
    return refused


class _Once(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(gradient: Tensor, why: str, *rests_on: Tensor) -> Tensor:  # noqa: ARG004
        return gradient.clone()

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: ARG004
        ctx.why = inputs[1]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # noqa: ARG004
        raise NotApplicableError(ctx.why)
