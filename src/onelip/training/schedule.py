"""Learning rates over a run."""

_POSITIONS = (0.0, 2 / 5, 4 / 5, 1.0)
_FACTORS = (0.0, 1.0, 1 / 20, 0.0)


def piecewise_triangular(progress: float) -> float:
    """Factor of the peak learning rate at a share of the run (Meunier et al., 2022, section 5.1).

    Example:
        >>> [piecewise_triangular(p) for p in (0.0, 0.2, 0.4, 0.8, 1.0)]
        [0.0, 0.5, 1.0, 0.05, 0.0]
    """
    for i in range(3):
        left, right = _POSITIONS[i], _POSITIONS[i + 1]
        if progress <= right:
            share = (progress - left) / (right - left)
            return _FACTORS[i] * (1 - share) + _FACTORS[i + 1] * share
    return 0.0
