"""Where a bound loses against what is seen."""

import math

import pytest
import torch
from torch import nn

from onelip.bounds import Best, Product
from onelip.bounds.prefixes import prefixes
from onelip.chains import Block, Chain, Dense, Elementwise
from onelip.reading import read
from tests.networks import chain_of, random_weights


def test_each_part_is_between_what_is_seen_and_the_product() -> None:
    weights = random_weights(4, 8, 7, 6, 3)
    found = prefixes(chain_of(weights), seconds=4)
    assert [part.name for part in found] == ["0", "1", "2", "last"]
    for k, part in enumerate(found):
        chain = chain_of(weights[: k + 1]) if k else Chain((), Dense(weights[0]))
        assert part.product == pytest.approx(float(Product().bound(chain)), rel=1e-9)
        assert 0 < part.lower <= part.bound * (1 + 1e-9) <= part.product * (1 + 2e-9)
    total = math.prod(part.lost for part in found)
    assert total == pytest.approx(found[-1].bound / found[-1].lower)
    assert found[0].lost == pytest.approx(1, rel=1e-3)


def test_the_layer_that_loses_is_named() -> None:
    """The second layer forgets what the first makes large, and only the product does not see it."""
    first = Block(Dense(torch.diag(torch.tensor([100.0, 1.0])).double()), Elementwise.of(nn.ReLU()))
    second = Block(Dense(torch.diag(torch.tensor([0.0, 1.0])).double()), Elementwise.of(nn.ReLU()))
    found = prefixes(Chain((first, second), Dense(torch.eye(2).double())), seconds=1)
    assert found[0].product / found[0].lower < 1.01
    assert found[1].product / found[1].lower > 90
    assert found[1].bound < 0.9 * found[1].product


def test_no_time_gives_no_parts_and_the_report_holds_them() -> None:
    chain = chain_of(random_weights(4, 8, 7, 3))
    assert prefixes(chain, seconds=0) == ()
    found = Best(seconds=5).report(chain)
    assert len(found.prefixes) == 3
    assert found.prefixes[-1].bound >= float(found.bound) * (1 - 1e-9)
    conv = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2))
    parts = Best(seconds=2).report(read(conv.double().eval(), (1, 4, 4))).prefixes
    assert [part.lower <= part.bound * (1 + 1e-9) for part in parts] == [True, True]
