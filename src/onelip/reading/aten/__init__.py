"""Programs of ``torch.export`` as chains."""
