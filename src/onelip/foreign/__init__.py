"""Layers of deel-torchlip and orthogonium, read from the weights that their ``forward`` uses.

The files are imported when such a layer is met, and need not be imported by hand. Each file has one
table by exact type, ``RECORDS``, with bounds that hold for every input that the layer takes, its
reading and its export. A layer that is 1-Lipschitz only on inputs of the right shape (a bias of 8
channels repeats an input of one) has no bound by itself: it is exported to a layer of this package
that checks its input.
"""
