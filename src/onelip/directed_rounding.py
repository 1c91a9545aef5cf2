"""Numbers as text, rounded in the direction that keeps a bound valid."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal


def upwards(bound: float, places: int) -> str:
    """Format an upper bound with some decimal places, rounded upwards.

    Example:
        >>> upwards(1.00000001, 6)
        '1.000001'
        >>> upwards(1e-12, 9)
        '0.000000001'
    """
    digits = Context(prec=400)  # of the largest float and more
    # Decimal(bound) is exact: only the last step rounds, and it rounds up.
    return f"{Decimal(bound).quantize(Decimal(1).scaleb(-places), ROUND_CEILING, digits):f}"


def downwards(bound: float, digits: int = 6) -> str:
    """Format a lower bound with some significant digits, rounded downwards.

    Example:
        >>> downwards(0.99999999)
        '0.999999'
    """
    return f"{Context(digits, ROUND_FLOOR).create_decimal(bound).normalize():f}"
