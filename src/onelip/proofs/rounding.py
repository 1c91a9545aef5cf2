"""Radii of level float, as large as the checker accepts them."""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import safetensors.torch
from torch import Tensor

from onelip.checker import check
from onelip.errors import NotApplicableError
from onelip.proofs.claims import hexadecimal
from onelip.proofs.maps import Record

_ROOM = 1 - 2.0**-24
"""By how much a claim is smaller than the radius that the checker's own bounds leave."""

_PASSES, _STEPS = 4, 4  # samples without a radius leave the batch, whose grid then changes


class _Claimed(check.Network):
    """A network whose norms are believed: ``prove`` has the whole bundle checked at its end."""

    def maps(self, records: Any, inputs: Any, place: str) -> Any:  # noqa: ARG002
        """Linear maps one after the other."""
        found = []
        for record in records:
            found.append(check.MAPS[record["map"]](record, self.tensors, inputs))
            inputs = found[-1].outputs
            self.size = max(self.size, found[-1].size)
        return found, inputs


def with_rounding(content: Record, tensors: dict[str, Tensor]) -> Record:
    """What changes in a bundle where rounding is counted: the radii; nothing at level real.

    The radius R(r) that rounding within r leaves falls with r, so that ``min(r, R(r))`` is certain
    for every r. The rounding is what the checker computes, by its own functions.

    Args:
        content: of a bundle at level float, with the radii of level real.
        tensors: of the bundle.

    Raises:
        NotApplicableError: the level says nothing of a part, or a number is none of its dtype.
    """
    if content["level"] == "real" or content["samples"] is None:
        return {}
    check.Work.left = math.inf
    held = check.Tensors(safetensors.torch.save(tensors))
    level, samples = content["level"], content["samples"]
    claimed = _Claimed(content["network"], held, tuple(content["input"]), lambda _: None)
    kind: Any = check.KINDS["rounding"]
    try:
        kind.of_level(check, level, claimed)
    except check.Invalid as error:
        raise NotApplicableError(f"level float: {error}") from None
    arithmetics = check.KINDS["sums"].arithmetics(level["numbers"], level["sums"])
    around = kind.Rounding(check, held, *arithmetics).around(claimed, samples["head"])
    radii = [float.fromhex(radius) for radius in samples["radii"]]
    x, predictions = held.get(samples["inputs"]), samples["predictions"]
    batch = claimed.batch
    for first in range(0, len(x), batch):
        grid = check.Grid.of(x[first : first + batch], check.VALUE)
        for _ in range(_PASSES):
            kept = [at for at in range(len(grid.ints)) if radii[first + at] > 0]
            if not kept:
                break
            left = around(replace(grid, ints=grid.ints[kept]))
            for place, at in enumerate(kept):
                own, real = predictions[first + at], float.fromhex(samples["radii"][first + at])
                radii[first + at] = _largest(left, place, own, real) * _ROOM
            if all(radii[first + at] > 0 for at in kept):
                break
    return {"samples": samples | {"radii": [hexadecimal(radius) for radius in radii]}}


def _largest(left: Callable[..., Any], at: int, own: int, real: float) -> float:
    """A radius r up to some millionth below the one with R(r) = r; 0 if there is none."""

    def within(radius: float) -> float:
        try:
            pairs = left(at, own, Fraction(radius)).values()
        except check.Invalid:  # numbers may overflow
            return -real
        return min(float(margin / constant) for margin, constant in pairs if constant)

    low, high, at_low, at_high = 0.0, real, within(0.0), within(real)
    if at_high >= real:
        return real
    for _ in range(_STEPS):
        if at_low <= low or high - low <= high * 2.0**-20:
            break
        # R is nearly linear: where it meets the diagonal
        gaps = at_low - low, high - at_high
        r = low + (high - low) * gaps[0] / (gaps[0] + gaps[1])
        there = within(r)
        if there >= r:
            low, at_low, high = r, there, min(high, there)
            at_high = min(at_high, high)
        else:
            high, at_high = r, there
            if there > low:  # what is left within r is left within less, too
                low, at_low = there, max(there, within(there))
    return low
