"""``onelip check``: check a bundle, by a program that shares nothing with its writer."""

from onelip.checker import check


def run(arguments: list[str]) -> int:
    """Check a bundle; exit status 0 for VALID, 1 for INVALID."""
    return check.main(arguments, "onelip check")
