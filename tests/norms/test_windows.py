"""Windows that share a pixel, counted, and roots that are rounded up."""

import itertools
import math
from fractions import Fraction

import pytest
from torch import nn

from onelip.norms.windows import overlap_of_maxima, overlap_of_sums, root_above
from tests.oracles import materialised, sigma_max

POOLS = [(1, 1), (2, 2), (2, 1), (3, 1), (3, 2), (3, 3), (2, 3), (4, 2), (4, 3), (5, 2)]


@pytest.mark.parametrize(("kernel", "stride"), POOLS)
def test_sums_over_windows_along_an_axis(kernel, stride):
    """Never above the counted norm, and close to it on a long axis."""

    def pool(x):
        return nn.functional.avg_pool1d(x, kernel, stride) * kernel

    limit = math.sqrt(sum(len(range(p, kernel, stride)) ** 2 for p in range(stride)))
    assert overlap_of_sums([(kernel, stride)]) == round(limit**2)
    assert overlap_of_sums([(kernel, stride)] * 2) == round(limit**4)
    norms = [sigma_max(materialised(pool, (1, n))) for n in (kernel, 2 * kernel + stride, 120)]
    assert max(norms) <= limit * (1 + 1e-12)
    assert norms[-1] >= 0.99 * limit


DILATED = [(2, 1, 2), (2, 2, 2), (3, 2, 2), (3, 2, 3), (3, 3, 2), (3, 4, 2), (4, 6, 4)]


def test_windows_that_share_a_pixel_by_brute_force(each):
    for kernel, stride, dilation in each([*((k, s, 1) for k, s in POOLS), *DILATED]):
        size = 60
        counts = [0] * size
        for start in range(0, size - (kernel - 1) * dilation, stride):
            for tap in range(kernel):
                counts[start + tap * dilation] += 1
        assert overlap_of_maxima([(kernel, stride)], (dilation,)) == max(counts)


def test_roots_are_rounded_up(each):
    for square, divisor in each(
        itertools.product(
            [0, 1, 2, 3, 4, 16, 10**9 + 7, 10**15 + 37, (10**7 + 1) ** 2], [1, 2, -3, 10**6]
        )
    ):
        root = root_above(square, divisor)
        assert Fraction(root) ** 2 * divisor**2 >= square
        assert root == pytest.approx(math.sqrt(square) / abs(divisor), rel=1e-15)
