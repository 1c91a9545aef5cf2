"""Constraints on the weights of torch's own linear layers, as torch's parametrizations.

They stand in for ``spectral_norm`` and ``orthogonal`` of ``torch.nn.utils.parametrizations``, with
two differences: of a convolution the norm of the map that it computes counts, not that of its
reshaped kernel, and in eval mode it is proved.
"""

from onelip.parametrize._lipschitz import Lipschitz, lipschitz
from onelip.parametrize._orthogonal import Orthogonal, orthogonal

__all__ = ["Lipschitz", "Orthogonal", "lipschitz", "orthogonal"]
