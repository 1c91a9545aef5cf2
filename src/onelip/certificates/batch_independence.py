"""Check that the output for a sample does not depend on the rest of its batch."""

import torch
from torch import Tensor, nn

from onelip.errors import UsageError

_SLACK = 1e-3  # of the largest output, for sums in another order


@torch.no_grad()
def refuse_mixed(model: nn.Module, first: Tensor, outputs: Tensor) -> None:
    """Refuse a model whose output for a sample changes with the rest of the batch.

    A constant is about one sample; ``nn.Flatten(0)``, for one, makes all samples of a batch a
    single one. The first sample is run alone: a check, no proof.

    Args:
        model: the model that gave the outputs, in batches.
        first: the first sample, ``(1, ...)``.
        outputs: outputs of all samples.

    Raises:
        UsageError: the sample has another output alone than in the batch.
    """
    if not outputs.isfinite().all() or len(outputs) < 2:
        return
    try:
        alone = model(first.clone()).flatten()
        apart = float((alone - outputs[0].flatten()).abs().max())
    except RuntimeError as error:
        raise UsageError(f"the model does not run on a sample alone: {error}") from None
    if apart > _SLACK * float(outputs.abs().max()):
        raise UsageError(
            "the model gives a sample alone another output than in a batch: it mixes samples"
        )
