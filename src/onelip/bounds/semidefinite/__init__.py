"""Quadratic forms of plain chains: any solver proposes multipliers, one function proves them."""
