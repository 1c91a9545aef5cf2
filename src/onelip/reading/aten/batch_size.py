"""The size of a batch in a traced program: part of a shape, and of nothing else."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch._ops import OpOverload

from onelip.errors import UnboundedModuleError


class BatchSize(int):
    """A number that follows from the size of the batch, here 1: good for shapes, for nothing else.

    A result in which it is a number, such as ``x * x.shape[0]``, differs from batch to batch.
    """


def counting(compute: Callable[..., Any]) -> Callable[..., Any]:
    """Mark the result of an operation as one that follows from the size of the batch."""

    def count(*values: Any) -> BatchSize:
        result = compute(*values)
        if not isinstance(result, int):
            raise UnboundedModuleError("the size of the batch is used as a number")
        return BatchSize(result)

    return count


def without_batch_as_number(
    target: OpOverload, operation: Callable[..., Any] | None
) -> Callable[..., Any] | None:
    """Operation that refuses the size of the batch wherever it is no part of a shape."""
    if operation is None:
        return None
    arguments = target._schema.arguments

    def checked(*values: Any) -> Any:
        refuse_batch_as_number(arguments, values)
        return operation(*values)

    return checked


def refuse_batch_as_number(arguments: Sequence[Any], values: Sequence[Any]) -> None:
    """Refuse the size of the batch as an argument that is neither a size nor a list of sizes.

    Raises:
        UnboundedModuleError: there is one.
    """
    for argument, value in zip(arguments, values, strict=True):
        if isinstance(value, BatchSize) and not isinstance(argument.type, torch.IntType):
            raise UnboundedModuleError("the size of the batch is used as a number")
