"""CPU threads of a run."""

import torch


def use_threads(count: int) -> None:
    """Set the number of torch's CPU threads; 0 keeps torch's own choice."""
    if count:
        torch.set_num_threads(count)
