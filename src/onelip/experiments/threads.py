"""CPU threads of a run."""

import torch


def use_threads(count: int) -> None:
    """Let torch use as many CPU threads as the settings of a run say; 0 is torch's own choice."""
    if count:
        torch.set_num_threads(count)
