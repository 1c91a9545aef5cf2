"""Records of torch's linear maps: matrices and convolutions."""

from torch import Tensor, nn

from onelip import norms
from onelip.chains.linear_layers import (
    Sides,
    convolution,
    dense,
    expect,
    reshaped,
    transposed_convolution,
)
from onelip.chains.value import Value
from onelip.forward_error import Local, Run, affine, refuse_fast_convolutions
from onelip.lipschitz.records import RECORDS, ModuleRecord
from onelip.norms.convolutions import Pair, check_padding_mode, pair


def _linear_bound(module: nn.Linear) -> Tensor:
    return norms.dense(module.weight)


def _linear_chain(module: nn.Linear, value: Value) -> Value:
    return dense(value, module.weight, module.bias)


def _linear_error(module: nn.Linear, run: Run) -> Local:
    return affine(module, run, module.weight.shape[1])


def _conv2d_bound(module: nn.Conv2d) -> Tensor:
    """Bound for every image size, since the module does not know its own."""
    return norms.convolution(
        module.weight,
        padding=module.padding,  # type: ignore[arg-type]
        padding_mode=module.padding_mode,
        stride=module.stride,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        groups=module.groups,
    )


def _conv2d_chain(module: nn.Conv2d, value: Value) -> Value:
    """Convolution with the padding on each side that torch takes."""
    check_padding_mode(module.padding_mode)
    return convolution(
        value,
        module.weight,
        module.bias,
        stride=pair(module.stride),
        sides=sides_of(module.weight, module.padding, pair(module.dilation)),
        dilation=pair(module.dilation),
        groups=module.groups,
        circular=module.padding_mode == "circular",
    )


def _conv1d_bound(module: nn.Conv1d) -> Tensor:
    padding = module.padding if isinstance(module.padding, str) else (0, module.padding[0])
    return norms.convolution(
        module.weight[:, :, None],
        padding=padding,
        padding_mode=module.padding_mode,
        stride=(1, module.stride[0]),
        dilation=(1, module.dilation[0]),
        groups=module.groups,
    )


def _conv1d_chain(module: nn.Conv1d, value: Value) -> Value:
    """Convolution of an image of one row."""
    check_padding_mode(module.padding_mode)
    expect(value, f"({module.in_channels}, length)", len(value.shape) == 2)
    weight, dilation = module.weight[:, :, None], (1, module.dilation[0])
    padding = module.padding if isinstance(module.padding, str) else (0, module.padding[0])
    image = convolution(
        reshaped(value, (value.shape[0], 1, value.shape[1])),
        weight,
        module.bias,
        stride=(1, module.stride[0]),
        sides=sides_of(weight, padding, dilation),
        dilation=dilation,
        groups=module.groups,
        circular=module.padding_mode == "circular",
    )
    return reshaped(image, (image.shape[0], image.shape[2]))


def _convolution_error(module: nn.Conv2d, run: Run) -> Local:
    refuse_fast_convolutions(module.weight)
    return affine(module, run, module.weight[0].numel())


def _conv_transpose2d_bound(module: nn.ConvTranspose2d) -> Tensor:
    """The adjoint of ``nn.Conv2d`` with the same weight, or of a part of it, with zero padding."""
    return norms.convolution(
        module.weight,
        padding=module.padding,  # type: ignore[arg-type]
        stride=module.stride,  # type: ignore[arg-type]
        dilation=module.dilation,  # type: ignore[arg-type]
        groups=module.groups,
    )


def _conv_transpose2d_chain(module: nn.ConvTranspose2d, value: Value) -> Value:
    return transposed_convolution(
        value,
        module.weight,
        module.bias,
        stride=pair(module.stride),
        padding=pair(module.padding),  # type: ignore[arg-type]
        output_padding=pair(module.output_padding),
        groups=module.groups,
        dilation=pair(module.dilation),
    )


def _conv_transpose2d_error(module: nn.ConvTranspose2d, run: Run) -> Local:
    refuse_fast_convolutions(module.weight)
    return affine(module, run, module.weight[:, 0].numel() // module.groups)


def sides_of(weight: Tensor, padding: int | tuple[int, ...] | str, dilation: Pair) -> Sides:
    """Pixels before and after; ``"same"`` puts the odd one after."""
    if padding == "valid":
        return (0, 0), (0, 0)
    if isinstance(padding, str):
        totals = [d * (k - 1) for d, k in zip(dilation, weight.shape[2:], strict=True)]
        rows, columns = ((total // 2, total - total // 2) for total in totals)
        return rows, columns
    height, width = pair(padding)
    return (height, height), (width, width)


RECORDS |= {
    nn.Linear: ModuleRecord(
        lipschitz_bound=_linear_bound, to_chain=_linear_chain, forward_error=_linear_error
    ),
    nn.Conv1d: ModuleRecord(
        lipschitz_bound=_conv1d_bound, to_chain=_conv1d_chain, forward_error=_convolution_error
    ),
    nn.Conv2d: ModuleRecord(
        lipschitz_bound=_conv2d_bound, to_chain=_conv2d_chain, forward_error=_convolution_error
    ),
    nn.ConvTranspose2d: ModuleRecord(
        lipschitz_bound=_conv_transpose2d_bound,
        to_chain=_conv_transpose2d_chain,
        forward_error=_conv_transpose2d_error,
    ),
}
