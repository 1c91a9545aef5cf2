"""The exact Wasserstein-1 distance of two finite samples, by linear programming."""

import torch
from torch import Tensor

from onelip.errors import UsageError, missing_extra
from onelip.norms.rounding import power_of_two
from onelip.transport.critic_training import check_samples

_LARGEST = 2**30  # entries of the matrix of distances, 8 GB


def exact_distance(p: Tensor, q: Tensor) -> float:
    """Wasserstein-1 distance of two empirical measures, for the Euclidean distance.

    On the same samples, the difference of the means of any 1-Lipschitz function is at most this,
    up to rounding.
    For the distributions behind the samples it is on average too large (by the curse of dimension,
    often by far), where a critic on held-out samples is on average too small.

    Cost: ``n m`` distances in memory; the assignment (equal sizes, scipy) or network simplex (POT)
    about the cube of the size.

    Args:
        p: samples ``(n, ...)``.
        q: samples ``(m, ...)``.

    Raises:
        UsageError: samples of different shapes, or so many that the distances take over 8 GB; the
            solver did not finish.

    Example:
        >>> exact_distance(torch.zeros(3, 2), torch.tensor([[3.0, 4.0]]))
        5.0
    """
    check_samples(p, q)
    if len(p) * len(q) > _LARGEST:
        raise UsageError(
            f"{len(p)} x {len(q)} distances do not fit into memory: take a part of the samples, "
            "or a critic's lower bound"
        )
    points = [samples.detach().flatten(1).cpu().double() for samples in (p, q)]
    scale = power_of_two(torch.cat(points))  # against squares that overflow
    distances = torch.cdist(
        points[0] * scale,
        points[1] * scale,
        compute_mode="donot_use_mm_for_euclid_dist",  # which loses half of the digits
    )
    return (_assigned(distances) if len(p) == len(q) else _transported(distances)) / float(scale)


def _assigned(distances: Tensor) -> float:
    try:
        from scipy.optimize import linear_sum_assignment
    except ImportError as error:
        raise missing_extra("scipy", "transport") from error
    rows, columns = linear_sum_assignment(distances.numpy())
    return float(distances[rows, columns].mean())


def _transported(distances: Tensor) -> float:
    try:
        import ot
    except ImportError as error:
        raise missing_extra("pot", "transport") from error
    value, log = ot.emd2([], [], distances.numpy(), numItermax=10**9, log=True)
    if log["warning"]:
        raise UsageError(f"POT did not find the distance: {log['warning']}")
    return float(value)
