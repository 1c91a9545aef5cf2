"""Printed bounds stay true."""

from decimal import Decimal

import pytest
import torch

from onelip.directed_rounding import downwards, upwards


def test_printed_bounds_are_on_the_safe_side():
    torch.manual_seed(0)
    numbers = (
        torch.randn(300, dtype=torch.float64) * 10.0 ** torch.randint(-8, 8, (300,))
    ).tolist()
    for number in [*numbers, 0.0, 1.0, -1.0, 1e-300]:
        assert Decimal(upwards(number, 6)) >= Decimal(number)
        assert Decimal(upwards(number, 6)) - Decimal(number) <= Decimal("1e-6")
        assert Decimal(downwards(number)) <= Decimal(number)
        gap = Decimal(number) - Decimal(downwards(number))
        assert gap <= abs(Decimal(number)) * Decimal("1e-5")


@pytest.mark.parametrize(
    ("number", "text"), [(1.0, "1"), (0.1, "0.1"), (-0.25, "-0.25"), (12345678.0, "12345600")]
)
def test_short_numbers_stay_short(number, text):
    assert downwards(number) == text
