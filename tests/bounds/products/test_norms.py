"""Norms of products of maps, against the singular values of the matrix."""

from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch

from onelip.bounds.products import costs
from onelip.bounds.products import norms as module
from onelip.bounds.products.norms import Norms, norm_of
from onelip.chains import (
    Convolution,
    Dense,
    Gather,
    GroupMean,
    LinearMap,
    Reshape,
    Scale,
    Sum,
    identity,
)
from onelip.chains import composed as one_map
from onelip.errors import NonFiniteError
from tests.oracles import materialised, sigma_max


def _weight(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def _scale(shape: tuple[int, ...], factor: float) -> Scale:
    return Scale(shape, torch.tensor(factor, dtype=torch.float64))


def _products(seed: int) -> dict[str, list[LinearMap]]:
    torch.manual_seed(seed)
    image = (2, 6, 6)
    conv = Convolution(image, _weight(3, 2, 3, 3), padding=(1, 1))
    strided = Convolution(conv.outputs, _weight(4, 3, 4, 4), stride=(2, 2), padding=(1, 1))
    flat = Reshape(strided.outputs, (36,))
    dense, square = Dense(_weight(5, 36)), Dense(_weight(36, 36) / 6)
    there, back = Dense(_weight(7, 36) / 6), Dense(_weight(36, 7) / 6)
    skip = Sum((identity((36,)), one_map([there, _scale((7,), 0.5), back])))
    order = torch.randperm(36)
    return {
        "nothing": [identity((3,))],
        "single": [conv],
        "two convolutions": [conv, strided],
        "with centre": [conv, _scale(conv.outputs, 0.5), strided],
        "to dense": [conv, strided, flat, dense],
        "channels": [conv, Scale(conv.outputs, _weight(3, 1, 1)), strided],
        "residual": [skip, square, skip],
        "nested": [one_map([strided, flat]), one_map([skip, dense])],
        "groups": [square, GroupMean((36,), 4), square, GroupMean((36,), 4, remainder=True)],
        "moved": [square, Gather((36,), (4, 3, 3), order), flat, square],
        "narrow inside": [Dense(_weight(2, 30)), Dense(_weight(40, 2))],
        "decaying": [Dense(_weight(6, 6) / 10) for _ in range(30)],
    }


def _matrix(maps: Sequence[LinearMap]) -> torch.Tensor:
    def apply(x: torch.Tensor) -> torch.Tensor:
        for linear in maps:
            x = linear(x)
        return x

    return materialised(apply, maps[0].inputs)


@pytest.mark.parametrize("name", _products(0))
def test_is_above_and_close(name: str) -> None:
    for seed in range(20):
        maps = _products(seed)[name]
        exact, found = sigma_max(_matrix(maps)), float(norm_of(maps))
        assert found >= exact * (1 - 1e-13), seed
        assert found <= exact * (1 + (1e-4 if name == "decaying" else 1e-8)), seed


@pytest.mark.parametrize("name", _products(0))
def test_more_work_is_no_larger_and_none_is_the_product(name: str) -> None:
    for seed in range(3):
        maps = _products(seed)[name]
        exact = sigma_max(_matrix(maps))
        bounds = [float(norm_of(maps, work=work)) for work in (0, 1e4, 1e5, 1e6, 1e7, 1e9)]
        assert all(bound >= exact * (1 - 1e-13) for bound in bounds)
        assert all(more <= less * (1 + 1e-9) for less, more in pairwise(bounds))


def test_without_work_single_norms_are_multiplied() -> None:
    first, second = Dense(_weight(4, 5)), Dense(_weight(6, 4))
    expected = sigma_max(first.weight) * sigma_max(second.weight)
    assert float(norm_of([first, second], work=0)) == pytest.approx(expected, rel=1e-8)


def test_parts_that_are_affordable_are_written_out() -> None:
    parts = [Dense(_weight(8, 8)), Dense(_weight(200, 8)), Dense(_weight(8, 200))]
    maps = [*parts, Dense(_weight(300, 8))]
    all_single = float(norm_of(maps, work=0))
    cost = Norms().cost(maps)
    some = [float(norm_of(maps, work=cost * share)) for share in (0.3, 0.6, 0.9)]
    whole = float(norm_of(maps, work=cost))
    assert whole == pytest.approx(sigma_max(_matrix(maps)), rel=1e-8)
    assert all(whole <= part <= all_single for part in some)
    assert some[-1] < all_single * 0.999


@pytest.mark.parametrize("power", [-200, -150, 150])
def test_tiny_and_huge_weights(power: int) -> None:
    first, second = _weight(4, 5), _weight(6, 4)
    maps = [Dense(first * 10.0**power), Dense(second * 10.0 ** (-power))]
    assert float(norm_of(maps)) == pytest.approx(sigma_max(second @ first), rel=1e-8)
    if power > 0:
        maps = [Dense(first * 10.0**power), Dense(second * 10.0 ** (power - 2))]
        expected = sigma_max(second @ first) * 10.0 ** (2 * power - 2)
        assert float(norm_of(maps)) == pytest.approx(expected, rel=1e-8)


def test_zero_and_subnormal() -> None:
    assert float(norm_of([Dense(torch.zeros(3, 4).double()), Dense(_weight(2, 3))])) == 0
    tiny = Dense(torch.full((2, 2), 5e-324, dtype=torch.float64))
    assert 0 < float(norm_of([tiny])) <= 2e-323
    assert 0 < float(norm_of([tiny, tiny])) <= 1e-323  # exactly 0 in floats, not in numbers


def test_beyond_the_largest_number() -> None:
    huge = Dense(torch.eye(2).double() * 1e200)
    with pytest.raises(NonFiniteError, match="beyond the largest"):
        norm_of([huge, huge])


def test_a_number_between_two_layers_keeps_a_single_convolution_single() -> None:
    conv = Convolution((2, 40, 40), _weight(2, 2, 3, 3), padding=(1, 1))
    maps = [Reshape((3200,), (2, 40, 40)), conv, _scale(conv.outputs, -0.5)]
    expected = conv.norm()
    assert expected is not None
    assert float(norm_of(maps)) == pytest.approx(float(expected) / 2, rel=1e-14)


def test_through_a_narrow_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """The way of large maps, taken by small ones."""
    monkeypatch.setattr(costs, "WRITTEN_OUT", 5)
    monkeypatch.setattr(module, "_TIGHT", -1)
    for seed in range(4):
        for name, maps in _products(seed).items():
            exact, found = sigma_max(_matrix(maps)), float(norm_of(maps))
            assert found >= exact * (1 - 1e-13), (name, seed)
            if name != "decaying":
                assert found <= exact * (1 + 2e-8), (name, seed)


def test_an_unfinished_estimate_loses_little(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "WRITTEN_OUT", 5)
    for name, maps in _products(3).items():
        exact, found = sigma_max(_matrix(maps)), float(norm_of(maps))
        assert exact * (1 - 1e-13) <= found <= exact * (1 + 2e-4) or name == "decaying"


def test_rows_come_with_their_errors() -> None:
    for maps in _products(1).values():
        factor, rows, errors = Norms().rows(maps)
        exact = _matrix(maps)
        gap = (float(factor) * rows).norm(dim=1) - exact.norm(dim=1)
        assert (gap.abs() <= float(factor) * errors + 1e-12).all()
        assert (errors <= 1e-9).all()
