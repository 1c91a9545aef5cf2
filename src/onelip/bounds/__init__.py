"""Proved upper bounds of the Lipschitz constants of whole networks."""
