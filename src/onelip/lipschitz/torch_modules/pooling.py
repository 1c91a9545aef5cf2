"""Records of torch's poolings."""

import math

from torch import nn

from onelip.chains.linear_layers import adaptive_averages, average, expect
from onelip.chains.value import Value
from onelip.errors import UnboundedModuleError
from onelip.forward_error import Local, Run, moved
from onelip.lipschitz.records import RECORDS, ModuleRecord
from onelip.norms.convolutions import pair
from onelip.norms.windows import Windows, overlap_of_maxima, overlap_of_sums, root_above


def _average_bound(module: nn.AvgPool2d) -> float:
    """The box filter, its taps counted by phase of the stride: exact on large images."""
    if module.ceil_mode or (any(pair(module.padding)) and not module.count_include_pad):
        raise UnboundedModuleError(
            "AvgPool2d divides by less at the border: ceil_mode=False, count_include_pad=True"
        )
    windows = _windows(module)
    area = math.prod(kernel for kernel, _ in windows)
    return root_above(overlap_of_sums(windows), module.divisor_override or area)


def _average_chain(module: nn.AvgPool2d, value: Value) -> Value:
    """Average over windows that are all divided by the same number."""
    _average_bound(module)
    return average(
        value,
        pair(module.kernel_size),
        pair(module.stride),
        pair(module.padding),
        module.divisor_override,
    )


def _average_error(module: nn.AvgPool2d, run: Run) -> Local:
    size = module.kernel_size
    window = size * size if isinstance(size, int) else math.prod(size)
    run.arithmetic.check(window * run.x.reach)
    return Local(0.0, run.rounding(window + 2, run.lipschitz * run.x.reach))


def _max_bound(module: nn.MaxPool2d) -> float:
    """A pixel reaches at most the windows that cover it: the root of their number."""
    if module.return_indices:
        raise UnboundedModuleError("MaxPool2d returns indices, which jump: return_indices=False")
    return root_above(overlap_of_maxima(_windows(module), pair(module.dilation)))


def _adaptive_bound(module: nn.AdaptiveAvgPool2d) -> float:
    """One window over the whole image contracts; of others nothing is known without its size."""
    if module.output_size not in (1, (1, 1)):
        raise UnboundedModuleError(
            "AdaptiveAvgPool2d takes its windows from the image's size: read it with the shape of "
            "the input, onelip.reading.read(model, shape), or use AvgPool2d"
        )
    return 1.0


def _adaptive_chain(module: nn.AdaptiveAvgPool2d, value: Value) -> Value:
    """Average over windows: of one size that do not overlap, or of any."""
    expect(value, "(channels, height, width)", len(value.shape) == 3)
    size = module.output_size
    asked = (size, size) if size is None or isinstance(size, int) else tuple(size)
    wanted = [n if a is None else a for a, n in zip(asked, value.shape[1:], strict=True)]
    if any(n % a for a, n in zip(wanted, value.shape[1:], strict=True)):
        return adaptive_averages(value, wanted)
    kernel = (value.shape[1] // wanted[0], value.shape[2] // wanted[1])
    return average(value, kernel, kernel, (0, 0))


def _adaptive_error(module: nn.AdaptiveAvgPool2d, run: Run) -> Local:  # noqa: ARG001
    """Rounding of a mean over the whole image, the only one with a bound."""
    pixels = math.prod(run.x.shape[-2:])
    run.arithmetic.check(pixels * run.x.reach)
    return Local(0.0, run.rounding(pixels + 2, run.lipschitz * run.x.reach))


def _windows(module: nn.AvgPool2d | nn.MaxPool2d) -> Windows:
    return list(zip(pair(module.kernel_size), pair(module.stride), strict=True))


RECORDS |= {
    nn.AvgPool2d: ModuleRecord(
        lipschitz_bound=_average_bound, to_chain=_average_chain, forward_error=_average_error
    ),
    nn.MaxPool2d: ModuleRecord(lipschitz_bound=_max_bound, forward_error=moved),
    nn.AdaptiveAvgPool2d: ModuleRecord(
        lipschitz_bound=_adaptive_bound, to_chain=_adaptive_chain, forward_error=_adaptive_error
    ),
}
