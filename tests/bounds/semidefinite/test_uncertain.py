"""Bounds of networks with uncertain units, against thousands of small ones with given slopes."""

import pytest
import torch
from torch import Tensor

from onelip.bounds.neighbourhood.approx import Approx
from onelip.bounds.semidefinite.uncertain import (
    Multipliers,
    Uncertain,
    feasible,
    norms,
    proposed,
    reduced,
    rises,
)

INPUTS, LAYERS = 3, (3, 0, 4, 2)


def systems(count: int, *, scale: float = 1.0) -> Uncertain:
    """Random units in layers, some of them padding, with entries that hold."""
    size = sum(LAYERS)
    layer = torch.arange(len(LAYERS)).repeat_interleave(torch.tensor(LAYERS))
    rows = torch.randn(count, size, INPUTS + size).double() * scale / size**0.5
    rows[..., INPUTS:] *= layer[:, None] > layer
    padding = torch.rand(count, size) < 0.1
    rows[padding] = 0
    rows[..., INPUTS:] = rows[..., INPUTS:].masked_fill(padding[:, None], 0)
    entries = torch.zeros(count, size).double()
    for unit in range(size):
        known = rows[:, unit, :INPUTS].norm(dim=1)
        entries[:, unit] = known + (rows[:, unit, INPUTS:].abs() * entries).sum(1)
    signs = (torch.randint(0, 3, (count, size)) - 1.0, torch.randint(0, 2, (count, size)) * 2.0 - 1)
    side, sign = (s.double() for s in signs)
    nothing = torch.zeros(count).double()
    return Uncertain(
        Approx(rows, nothing),
        entries,
        layer.expand(count, -1),
        side,
        sign,
        torch.zeros_like(side),
        nothing,
    )


def images(count: int, rows: int) -> Approx:
    numbers = torch.randn(count, rows, INPUTS + sum(LAYERS)).double()
    return Approx(numbers, torch.zeros(count).double())


def attained(units: Uncertain, image: Approx, draws: int, *, tangents: bool) -> Tensor:
    """Largest rises of the rows, ``(batch, rows)``, and norms, ``(batch,)``, of random slopes.

    The slopes of a unit are drawn when its input is known, so that its tangent holds.
    """
    matrix, count = units.rows.matrix, units.size
    best = torch.zeros(len(matrix), image.matrix.shape[1]).double()
    norm = torch.zeros(len(matrix)).double()
    for draw in range(draws):
        delta = torch.randn(len(matrix), INPUTS).double()
        delta = delta / delta.norm(dim=1, keepdim=True)
        u = torch.cat([delta, torch.zeros(len(matrix), count).double()], 1)
        for unit in range(count):
            z = (matrix[:, unit] * u).sum(1)
            slope = torch.rand(len(z)).double() * 2 - 1
            slope = slope.sign() if draw % 2 else slope
            w = slope * z
            if tangents:
                side, sign = units.side[:, unit], units.sign[:, unit]
                w = torch.where(side * (w + sign * z) < 0, z.abs() * side, w)
            u[:, INPUTS + unit] = w
        y = (image.matrix @ u[..., None])[..., 0]
        best, norm = torch.maximum(best, y), torch.maximum(norm, y.norm(dim=1))
    return best, norm


def steepest(units: Uncertain, image: Approx, draws: int) -> tuple[Tensor, Tensor]:
    """The same for slopes of 1 and -1, for the worst of all inputs."""
    matrix, count = units.rows.matrix, units.size
    best = torch.zeros(len(matrix), image.matrix.shape[1]).double()
    norm, eye = torch.zeros(len(matrix)).double(), torch.eye(count).double()
    first, later = matrix[..., :INPUTS], matrix[..., INPUTS:]
    for _ in range(draws):
        slopes = torch.randint(0, 2, (len(matrix), 1, count)) * 2.0 - 1
        z = torch.linalg.solve_triangular(eye - later * slopes, first, upper=False)
        jacobian = image.matrix[..., :INPUTS] + (image.matrix[..., INPUTS:] * slopes) @ z
        best = torch.maximum(best, jacobian.norm(dim=2))
        norm = torch.maximum(norm, torch.linalg.matrix_norm(jacobian, 2))
    return best, norm


def test_four_thousand_networks_are_never_steeper_than_the_bound():
    for scale in (0.3, 3.0):
        units, image = systems(2000, scale=scale), images(2000, 1)
        bound = rises(units, image, proposed(units, image.matrix, tangents=False))
        best, _ = steepest(units, image, 60)
        assert torch.isfinite(bound).all()
        assert (bound >= best * (1 - 1e-12)).all()
        assert float((bound / best).median()) < 1.2


def test_four_thousand_networks_never_rise_above_the_bound():
    for scale in (0.3, 3.0):
        units, image = systems(2000, scale=scale), images(2000, 1)
        bound = rises(units, image, proposed(units, image.matrix, tangents=True))
        without = rises(units, image, proposed(units, image.matrix, tangents=False))
        best, _ = attained(units, image, 60, tangents=True)
        assert (bound >= best).all()
        assert (bound <= without * 1.05).all()  # up to the gap at which a search ends
        assert float((bound / without).mean()) < 0.95


def test_four_thousand_networks_with_fewer_units():
    for scale in (0.3, 3.0):
        units, image = systems(2000, scale=scale), images(2000, 1)
        best, _ = attained(units, image, 60, tangents=True)
        free = units._replace(side=torch.zeros_like(units.side))
        both, _ = steepest(units, image, 60)
        whole = rises(units, image, proposed(units, image.matrix, tangents=True))
        for largest in (8, 2, 0):
            fewer, single, added = reduced(units, image, largest)
            assert fewer.size <= largest
            found = proposed(fewer, single.matrix, tangents=True)
            bound = rises(fewer, single, found) + added[:, None]
            assert (bound >= best * (1 - 1e-12)).all()
            assert largest < 8 or float((bound / whole).mean()) < 1.2
            fewer, single, added = reduced(free, image, largest)
            found = proposed(fewer, single.matrix, tangents=False)
            assert (rises(fewer, single, found) + added[:, None] >= both * (1 - 1e-12)).all()


def test_four_thousand_images_of_several_rows():
    for scale in (0.3, 3.0):
        units, image = systems(2000, scale=scale), images(2000, 3)
        found = proposed(units, image.matrix, tangents=False)
        best, norm = steepest(units, image, 60)
        assert (norms(units, image, found) >= norm * (1 - 1e-12)).all()
        assert (rises(units, image, found) >= best * (1 - 1e-12)).all()
        assert float((norms(units, image, found) / norm).median()) < 1.2


def test_any_multipliers_prove_a_bound():
    """Random ones are mostly useless, and their bound infinite or large: never too small."""
    units, image = systems(4000), images(4000, 2)
    best, norm = attained(units, image, 40, tangents=True)
    proved = 0
    for _ in range(4):
        weights = feasible(units) * 10 ** (torch.rand_like(units.entries) - 0.3)
        multiples = torch.randn(4000, 2, units.size).double()
        bound = rises(units, image, Multipliers(weights, multiples))
        proved += int(torch.isfinite(bound).sum())
        assert (bound >= best).all()
        assert (norms(units, image, Multipliers(weights, 0 * multiples)) >= norm).all()
    assert proved > 1000


def test_multipliers_that_are_no_numbers_prove_nothing():
    units, image = systems(3), images(3, 1)
    for bad in (0.0, -1.0, torch.nan, torch.inf):
        weights = feasible(units)
        weights[0, 0] = bad
        bound = rises(units, image, Multipliers(weights, torch.zeros(3, 1, units.size).double()))
        assert not bool(bound[0] < image.matrix[0, 0, :INPUTS].norm())
        assert torch.isfinite(bound[1:]).all()


def test_without_uncertain_units_it_is_the_norm():
    empty = torch.zeros(2, 0).double()
    units = Uncertain(
        Approx(torch.zeros(2, 0, INPUTS).double(), torch.zeros(2).double()),
        *(empty, empty.long(), empty, empty, empty),
        torch.zeros(2).double(),
    )
    image = Approx(torch.randn(2, 4, INPUTS).double(), torch.zeros(2).double())
    found = Multipliers(empty, torch.zeros(2, 1, 0).double())
    lengths = image.matrix.norm(dim=2)
    torch.testing.assert_close(rises(units, image, found), lengths, rtol=1e-12, atol=0)
    exact = torch.linalg.matrix_norm(image.matrix, 2)
    torch.testing.assert_close(norms(units, image, found), exact, rtol=1e-8, atol=0)


def test_an_error_of_the_matrices_is_added():
    """Matrices that are off by as much as is said, in the direction that hurts."""
    units, image = systems(200), images(200, 1)
    found = proposed(units, image.matrix, tangents=False)
    off = 1e-3
    for _ in range(5):
        noise = torch.randn_like(units.rows.matrix) * (units.rows.matrix != 0)
        noise = off * noise / noise.flatten(1).norm(dim=1).clamp_min(1e-9)[:, None, None]
        known = units._replace(
            rows=Approx(units.rows.matrix + noise, torch.full((200,), off).double()),
            entries=units.entries + 0.1,
        )
        best, _ = attained(units, image, 40, tangents=False)
        assert (rises(known, image, found) >= best).all()


def test_one_tangent_is_exact():
    """w = |z| / 2 - z / 2 at most: y = -w cannot rise, y = w rises by |z|."""
    rows = torch.tensor([[[1.0, 0.0]]]).double()
    one = torch.ones(1, 1).double()
    units = Uncertain(
        Approx(rows, torch.zeros(1).double()), one, 0 * one.long(), one, one, 0 * one, one[0] * 0
    )
    # side (w + z) >= 0: w is -z, or anything above it.
    for row, bound, loose in (
        ([0.0, 1.0], 1.0, 1.0),
        ([1.0, -1.0], 2.0, 2.0),
        ([-1.0, -1.0], 0.0, 2),
    ):
        image = Approx(torch.tensor([[row]]).double(), torch.zeros(1).double())
        for tangents, wanted in ((True, bound), (False, loose)):
            found = proposed(units, image.matrix, tangents=tangents)
            assert float(rises(units, image, found)) == pytest.approx(wanted, rel=0.02, abs=0.1)
            assert float(rises(units, image, found)) >= wanted
