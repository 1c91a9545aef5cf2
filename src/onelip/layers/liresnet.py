r"""Linear residual block of LiResNets (Hu, Zou, Wang, Leino, Fredrikson, NeurIPS 2023).

A block :math:`x + W x` without an activation inside is one convolution, with the kernel of W plus
the identity. Its norm is that of one map; for a nonlinear branch a bound would add 1 to the norm of
W. In training the kernel is divided by an estimate of its norm; the bound is proved.
"""

from typing import Unpack

import torch
from torch import Tensor
from typing_extensions import override

from onelip.layers.options import LayerOptions, Size, square
from onelip.layers.ossn import SpectralConv2d


class LiResNetConv2d(SpectralConv2d):
    r"""``(x + W x) / max(1, norm) + b`` as one convolution.

    Bound: the proved norm of the kernel in use on ``image_size``. It may exceed 1, the more the
    less converged the power iteration is.
    Shape: ``(batch, channels, h, w)`` to the same.
    Cost: a convolution; in training, ``2 iterations + 1`` more on a single image.

    Args:
        channels: channels of input and output.
        kernel_size: odd.
        image_size: height and width of the images for which the norm is proved.
        padding_mode: ``"zeros"``, the default of residual layers, or ``"circular"``.
        iterations: power iterations in training, each time that the weight has changed; the paper
            takes 10.
        **options: ``bias``, ``device`` and ``dtype``, see ``options.LayerOptions``.

    Raises:
        ValueError: an even kernel, which has no centre; in ``forward``, another image size.
        UnboundedModuleError: reflect or replicate padding.

    Example:
        >>> import onelip
        >>> layer = LiResNetConv2d(4, 3, image_size=8)
        >>> layer.power_step(200)
        >>> bool(onelip.lipschitz_bound(layer) < 1.01)
        True

    Reference: Hu et al., "Unlocking deterministic robustness certification on ImageNet", NeurIPS
    2023.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: Size = 3,
        *,
        image_size: int | tuple[int, int],
        padding_mode: str = "zeros",
        iterations: int = 10,
        **options: Unpack[LayerOptions],
    ) -> None:
        kernel_size = square(kernel_size, "kernel_size")
        if kernel_size % 2 == 0:
            raise ValueError(f"kernel_size must be odd to add the identity, got {kernel_size}")
        super().__init__(
            channels,
            channels,
            kernel_size,
            image_size=image_size,
            padding_mode=padding_mode,
            iterations=iterations,
            **options,
        )

    @override
    def free_kernel(self) -> Tensor:
        identity = torch.zeros_like(self.raw_weight)
        centre = self.kernel_size[0] // 2
        identity[:, :, centre, centre] = torch.eye(self.out_channels).to(identity)
        return identity + self.raw_weight
